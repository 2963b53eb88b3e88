"""The models of `training_step.py` under training, and the times of their parts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from cove_dist.distributed import DistributedContext
from cove_dist.quantization import (
    CascadedQuantizer,
    CodebookMaintenance,
    MaintenanceSettings,
    QuantizerOutput,
    Replicas,
    assignment,
)
from cove_dist.quantization.search import nearest_code
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema


class Stopwatch:
    """Milliseconds by part, since the last `take`."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = defaultdict(float)
        self._since: dict[str, float] = {}

    def start(self, part: str) -> None:
        self._since[part] = time.perf_counter()

    def stop(self, part: str) -> None:
        self._parts[part] += (time.perf_counter() - self._since.pop(part)) * 1e3

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        self.start(part)
        yield
        self.stop(part)

    def take(self) -> dict[str, float]:
        taken, self._parts = dict(self._parts), defaultdict(float)
        return taken


class OverlappedSum:
    """The all-reduce of the moving averages' statistics, begun after a forward pass, collected by the upkeep."""

    def __init__(self, quantizers: Sequence[CascadedQuantizer]) -> None:
        self._quantizers = quantizers

    def begin(self, *_: object) -> None:
        self._flat = torch.cat([one.moving_averages.take_statistics(one.codebooks) for one in self._quantizers])
        self._work = dist.all_reduce(self._flat, async_op=True)

    def collect(self, flat: torch.Tensor) -> None:
        self._work.wait()
        flat.copy_(self._flat)


class Contestant:
    """One model under training, its quantizers timed where they work, by hooks.

    Args:
        overrides, batches: Of the run; the batches are repeated without end.
        schema, context: Of the run.
        overlapped: Whether the all-reduce of the moving averages begins before the backward pass; then codebooks have
            no other upkeep, whatever the configuration says.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        batches: Sequence[Batch],
        schema: Schema,
        context: DistributedContext,
        overlapped: bool,
    ) -> None:
        config, _ = load_run_config(overrides)
        self.trainer = Trainer(config, schema, context)
        self.trainer.train_state.model.train()
        self._steps = self.trainer.steps(cycle(batches))
        self._after_step: Callable[[int], object] = self.trainer.codebooks.after_step
        objective = self.trainer.train_state.model.module.objective
        self.quantizers: dict[str, CascadedQuantizer] = dict(objective.quantizers.items())
        if overlapped:
            early = OverlappedSum(list(self.quantizers.values()))
            objective.register_forward_hook(early.begin)
            replicas = Replicas(context.rank, context.world_size, early.collect)
            self._after_step = CodebookMaintenance(self.quantizers, MaintenanceSettings(), replicas).after_step
        self.watch = Stopwatch()
        for one in self.quantizers.values():
            one.register_forward_pre_hook(lambda *_: self.watch.start("forward"))
            one.register_forward_hook(self._after_forward)

    def step(self) -> dict[str, float]:
        """Run one step; return its milliseconds in total and by part."""
        with self.watch.timed("step"), mock.patch.object(assignment, "nearest_code", self._timed_search):
            next(self._steps)
            with self.watch.timed("upkeep"):
                self._after_step(self.trainer.progress.step)
        times = self.watch.take()
        return times | {"other forward": times.get("forward", 0.0) - times.get("search", 0.0)}

    def all_reduced_bytes(self) -> int:
        """Return the bytes that the codebooks add to the all-reduces of a step."""
        gradients = [p for one in self.quantizers.values() for p in one.codebooks if p.requires_grad]
        averaged = [e for one in self.quantizers.values() if one.moving_averages is not None for e in one.codebooks]
        return sum(e.nbytes for e in gradients) + sum(e.nbytes + e[:, 0].nbytes for e in averaged)  # sums and counts

    def _timed_search(self, *arguments: Any, **named: Any) -> torch.Tensor:
        with self.watch.timed("search"):
            return nearest_code(*arguments, **named)

    def _after_forward(self, _module: object, _inputs: object, output: QuantizerOutput) -> None:
        self.watch.stop("forward")
        node = output.loss.grad_fn  # the cascade's own node; that of `fused` is a view of its result
        node.register_prehook(lambda *_: self.watch.start("backward"))
        node.register_hook(lambda *_: self.watch.stop("backward"))
