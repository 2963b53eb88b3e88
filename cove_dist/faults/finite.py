"""Divergence checks on all ranks: losses on the device at every step, the state before every save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cove_dist.distributed import DistributedContext, world
from cove_dist.errors import DivergedError
from cove_dist.torch_compat import ShardedTensor

_NEVER = torch.iinfo(torch.int64).max
_AT_ONCE = 256  # steps
_ADVICE = (
    "Lower trainer.optimizer.learning_rate or embeddings.optimizer.learning_rate, set trainer.gradient_clip_norm, or"
    " look for the step with trainer.debug=true."
)


class LossCheck:
    """Records, on the device, the first step at which each loss was not finite.

    `note` never waits for the device; `check` does, so call it where the trainer waits anyway.

    Args:
        context: Context of this rank.
    """

    def __init__(self, context: DistributedContext) -> None:
        self._context = context
        self._names: list[str] = []
        self._first = torch.full((0,), _NEVER, device=context.device)
        self._noted: list[tuple[int, list[torch.Tensor]]] = []  # steps and their losses, still to be looked at

    def note(self, step: int, losses: Mapping[str, torch.Tensor]) -> None:
        """Note the losses of a step. They are looked at for many steps at once, which takes a few operations.

        Args:
            step: Number of the step, from 1.
            losses: Detached scalars by name, with the same names at every step.
        """
        if not self._names:
            self._names = list(losses)
            self._first = torch.full((len(losses),), _NEVER, device=self._context.device)
        self._noted.append((step, list(losses.values())))
        if len(self._noted) >= _AT_ONCE:
            self._look()

    def _look(self) -> None:
        """Find the first step at which each of the noted losses was not finite, on the device."""
        if not self._noted:
            return
        steps, losses = zip(*self._noted, strict=True)
        self._noted.clear()
        values = torch.stack([loss.float() for each in losses for loss in each]).view(len(steps), -1)
        numbers = torch.tensor(steps, device=values.device)[:, None].expand(values.shape)
        faults = numbers.masked_fill(values.isfinite(), _NEVER)
        self._first = torch.minimum(self._first, faults.amin(dim=0))

    def check(self) -> None:
        """Check the records of all ranks since the start of the run. Collective.

        Raises:
            DivergedError: A loss was not finite on some rank; raised on every rank, names the first such step.
        """
        if not self._names:
            return
        self._look()
        steps = world().min(self._first.clone()).tolist()
        step = min(steps)
        if step != _NEVER:
            names = ", ".join(name for name, at in zip(self._names, steps, strict=True) if at == step)
            raise DivergedError(f"loss not finite at step {step} ({names}): training diverged. {_ADVICE}", step)


def check_state(state: Mapping[str, Any], step: int) -> None:
    """Refuse parameters, buffers and optimizer moments that are not finite. Collective.

    A loss is computed before the update of its step, so it does not reflect the last update. The check reads this
    rank's parts once, without a copy, and waits once for each device. A CPU core checks 128 million numbers in 0.1 s, a
    tenth of the time to copy them for a save.

    Args:
        state: State of a checkpoint, by name.
        step: Step after which the state is taken.
        context: Context of this rank.

    Raises:
        DivergedError: A tensor is not finite; raised on every rank, names the tensor and a rank that holds it.
    """
    for rank, name in enumerate(world().gather_objects(_first_not_finite(state))):
        if name is not None:
            text = f"{name} not finite after step {step} on rank {rank}: training diverged. {_ADVICE}"
            raise DivergedError(text, step)


def _first_not_finite(state: Mapping[str, Any]) -> str | None:
    for parts in _by_device(state).values():
        names, extremes = zip(*parts, strict=True)
        finite = torch.stack(extremes).isfinite().all(dim=1).tolist()  # waits once for each device
        if (wrong := next((name for name, good in zip(names, finite, strict=True) if not good), None)) is not None:
            return wrong
    return None


def _by_device(state: Mapping[str, Any]) -> dict[torch.device, list[tuple[str, torch.Tensor]]]:
    """Return name, minimum and maximum of this rank's tensors; TorchRec's row-wise Adagrad counts steps on the host."""
    found: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    for name, part in _floating(state, ""):
        if part.numel():
            extremes = torch.stack(part.aminmax()).double()  # nan makes both of them nan
            found.setdefault(part.device, []).append((name, extremes))
    return found


def _floating(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield this rank's floating-point tensors in nested mappings and lists, with dotted names."""
    if isinstance(value, ShardedTensor):
        yield from ((name, shard.tensor.detach()) for shard in value.local_shards() if shard.tensor.is_floating_point())
    elif isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _floating(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            yield from _floating(each, f"{name}.{number}")
