"""One optimizer and one learning-rate schedule over sharded tables, data-parallel tables and dense parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torchrec.distributed import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from cove_dist.config import OptimizerConfig, RunConfig, TrainerConfig
from cove_dist.distributed import world
from cove_dist.embeddings.frequency_decay import decay_factors
from cove_dist.embeddings.optimizers import optimizer_factory
from cove_dist.embeddings.sparse_optimizers import stored_gradients
from cove_dist.embeddings.tables import base_table
from cove_dist.errors import ConfigError


def data_parallel_parameters(model: DistributedModelParallel) -> dict[str, nn.Parameter]:
    """Return the data-parallel parameters: dense weights, codebooks, data-parallel tables."""
    return dict(in_backward_optimizer_filter(model.named_parameters()))


def data_parallel_state(model: DistributedModelParallel) -> dict[str, torch.Tensor]:
    """Return the data-parallel parameters and persistent buffers (moving averages of the codebooks)."""
    return data_parallel_parameters(model) | model.module.objective.state_dict(prefix="objective.")


def build_optimizer(
    model: DistributedModelParallel, config: RunConfig, counts: Mapping[str, torch.Tensor]
) -> CombinedOptimizer:
    """Build the optimizers: ``embeddings.optimizer`` for tables, ``trainer.optimizer`` for the rest; clipped together.

    Args:
        model: Sharded model.
        config: Configuration of the run.
        counts: Occurrences in training ``[rows]`` by table, for weight decay by frequency; empty: nothing is trained,
            or rows decay alike.

    Raises:
        ConfigError: Gradients are clipped or accumulated, and tables are sharded: their gradients are applied in the
            backward pass.
    """
    replicated = {name: p for name, p in data_parallel_parameters(model).items() if p.requires_grad}
    tables = {name: p for name, p in replicated.items() if name.startswith("tables.")}
    dense = {name: p for name, p in replicated.items() if name not in tables}
    power = config.embeddings.optimizer.weight_decay_frequency_power
    factors: dict[torch.Tensor, torch.Tensor] = {
        table: decay_factors(counts[base_table(name.split(".")[-2])].to(table.device), power)
        for name, table in (tables.items() if counts else ())
    }
    groups = (("dense", dense, config.trainer.optimizer), ("tables", tables, config.embeddings.optimizer))
    parts: list[tuple[str, KeyedOptimizer]] = [
        (name, _keyed(p, settings, factors)) for name, p, settings in groups if p
    ]
    norm = config.trainer.gradient_clip_norm
    if norm is not None and model.fused_optimizer.params:
        raise ConfigError(
            f"trainer.gradient_clip_norm = {norm}: sharded tables are updated in the backward pass, unclipped; allowed:"
            " null, or embeddings.sharding.default=data_parallel"
        )
    if config.trainer.accumulate_steps > 1 and model.fused_optimizer.params:
        raise ConfigError(
            f"trainer.accumulate_steps = {config.trainer.accumulate_steps}: sharded tables are updated in the backward"
            " pass of every batch; allowed: 1, or embeddings.sharding.default=data_parallel"
        )
    ordinary = CombinedOptimizer(parts) if norm is None else ClippedOptimizer(parts, norm)
    return FlatOptimizer([("fused", model.fused_optimizer), ("replicated", ordinary)])


class FlatOptimizer(CombinedOptimizer):
    """Steps its innermost parts directly, those that have parameters.

    torch records every step for its profiler, also that of an optimizer that only calls others: with data-parallel
    tables these are four of five, 4 % of a small step.

    Example:
        >>> weight = nn.Parameter(torch.ones(1))
        >>> part = KeyedOptimizerWrapper({"weight": weight}, lambda parameters: torch.optim.SGD(parameters, lr=0.5))
        >>> optimizer = FlatOptimizer([("outer", CombinedOptimizer([("inner", part)]))])
        >>> weight.grad = torch.ones(1)
        >>> optimizer.step()
        >>> weight.item(), list(optimizer.params)
        (0.5, ['outer.inner.weight'])
    """

    def __init__(self, parts: list[tuple[str, KeyedOptimizer]]) -> None:
        super().__init__(parts)
        self._innermost = [part for part in _innermost(self) if part.param_groups]

    def zero_grad(self, set_to_none: bool = False) -> None:
        for part in self._innermost:
            part.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> None:
        for part in self._innermost:
            part.step(closure)


def _innermost(optimizer: KeyedOptimizer) -> Iterator[KeyedOptimizer]:
    """Yield the parts of an optimizer's parts; gradients that are clipped together stay together."""
    if not isinstance(optimizer, CombinedOptimizer) or isinstance(optimizer, ClippedOptimizer):
        yield optimizer
        return
    for _, part in optimizer.optimizers:
        yield from _innermost(part)


class ClippedOptimizer(CombinedOptimizer):
    """Clips the gradients of all parts by their joint norm before a step.

    TorchRec's clipping wrapper keeps the (empty) state that the parts have when they are wrapped, so neither
    checkpoints nor the revival of codes would find the moments.
    """

    def __init__(self, parts: list[tuple[str, KeyedOptimizer]], max_norm: float) -> None:
        super().__init__(parts)
        self._max_norm = max_norm

    def step(self, closure: Any = None) -> None:
        nn.utils.clip_grad_norm_(self.params.values(), self._max_norm)
        super().step(closure)


def learning_rates(optimizer: CombinedOptimizer) -> dict[str, float]:
    """Return the current rates of the existing parts as ``learning_rate_dense`` and ``learning_rate_tables``."""
    parts = dict(optimizer.optimizers)
    ordinary = dict(parts["replicated"].optimizers)
    owners = {"dense": ordinary.get("dense"), "tables": ordinary.get("tables") or parts["fused"]}
    return {
        f"learning_rate_{name}": float(part.param_groups[0]["lr"])
        for name, part in owners.items()
        if part is not None and part.param_groups
    }


@torch.no_grad()
def gradient_norm(model: DistributedModelParallel) -> torch.Tensor | None:
    """Return the L2 norm of the last step's gradients of the data-parallel parameters, a scalar; None without any.

    Gradients of sharded tables are excluded, as they are applied in the backward pass, and those of sparse optimizers
    on the CPU, which keep rows of a rank only until the step. Clipped ones count as clipped.
    """
    gradients = (parameter.grad for parameter in data_parallel_parameters(model).values())
    present = [each.coalesce().values() if each.is_sparse else each for each in gradients if each is not None]
    return nn.utils.get_total_norm(present) if present else None


@torch.no_grad()
def gradients_are_finite(model: DistributedModelParallel, device: torch.device) -> bool:
    """Return whether the gradients of all ranks are finite before a step, except those of sharded tables. Collective.

    Args:
        model: The sharded model.
        device: Device of this rank.
    """
    norm = gradient_norm(model)
    tables = [p for name, p in data_parallel_parameters(model).items() if name.startswith("tables.")]
    own = all(bool(each.isfinite().all()) for each in stored_gradients(tables))
    own &= norm is None or bool(norm.isfinite())
    return bool(world().min(torch.tensor(own, dtype=torch.int32, device=device)))


def build_schedule(optimizer: torch.optim.Optimizer, settings: TrainerConfig, steps_per_epoch: int | None) -> LambdaLR:
    """Build the schedule of all learning rates: they rise linearly over the warm-up, then stay or fall to 0.

    Args:
        optimizer: Optimizers of tables, sharded or not, and of the other parameters.
        settings: Settings of the run.
        steps_per_epoch: Number of steps of an epoch; None: nothing is trained, and the rates do not fall.

    Raises:
        ConfigError: The rates would be 0 before the training ends, or fall before the warm-up does.
    """
    warmup, name, end = settings.warmup_steps, "constant", 1
    if settings.schedule.name != "constant" and steps_per_epoch is not None:
        name, end = settings.schedule.name, _end_of_schedule(settings, steps_per_epoch)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)) * _decay(name, step, warmup, end))


def _end_of_schedule(settings: TrainerConfig, steps_per_epoch: int) -> int:
    steps, schedule, warmup = settings.total_steps(steps_per_epoch), settings.schedule, settings.warmup_steps
    end = schedule.end(steps_per_epoch, steps)
    if end < steps:
        raise ConfigError(
            f"trainer.schedule = {schedule.name}: the learning rates would be 0 from step {end} on, of {steps};"
            f" allowed: trainer.schedule.epochs or steps that cover {steps} steps, or null"
        )
    if end <= warmup:
        raise ConfigError(f"trainer.warmup_steps = {warmup}: allowed: below the {end} steps of trainer.schedule")
    return end


def _decay(name: str, step: int, warmup: int, end: int) -> float:
    """Return the factor of the rates of a step, which is 1 up to the warm-up's end and 0 from step ``end`` on."""
    if name == "constant":
        return 1.0
    done = min(1.0, max(0, step - warmup) / (end - warmup))
    return 1.0 - done if name == "linear" else (1.0 + math.cos(math.pi * done)) / 2


def _keyed(
    parameters: dict[str, nn.Parameter], config: OptimizerConfig, factors: Mapping[torch.Tensor, torch.Tensor]
) -> KeyedOptimizerWrapper:
    return KeyedOptimizerWrapper(parameters, optimizer_factory(config, factors))
