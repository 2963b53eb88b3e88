"""Metrics of the steps since the last report, read from the device and reduced over ranks only when reported."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from cove_dist.distributed import DistributedContext, max_over_ranks, sum_over_ranks
from cove_dist.quantization import CodeUsage
from cove_dist.tasks.base import StepOutput
from cove_dist.training.codebooks import Quantizers, health
from cove_dist.training.memory import device_mb, resident_mb

_AT_ONCE = 256  # steps


class IntervalMetrics:
    """Loss parts (means over rows), codebook health, samples per second, and the largest rank's resident memory.

    The first step of a process does not count for the samples per second: it starts loaders and compiles.

    Args:
        quantizers: Quantizers by entity, whose health is reported.
        context: Context of this rank.
    """

    def __init__(self, quantizers: Quantizers, context: DistributedContext) -> None:
        self._quantizers = quantizers
        self._usage = CodeUsage(quantizers.values())
        self._context = context
        self._started = self._has_speed = False
        self.reset()

    def reset(self) -> None:
        """Reset the metrics."""
        self._sums: dict[str, float] = {}
        self._noted: list[tuple[int, Mapping[str, torch.Tensor]]] = []  # rows and losses of steps, still to be summed
        self._revived: dict[str, float] = {}
        self._rows = self._timed_rows = 0
        self._since = time.perf_counter()
        self._usage.reset()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent in the block from the samples per second."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def add(self, output: StepOutput, revived: Mapping[str, float], *, skipped: bool = False) -> None:
        """Add a step and the codes revived after it (the same on all ranks); wait for the device every 256 steps only.

        Args:
            output: Output of the step.
            revived: Codes, by their column in the report.
            skipped: Whether the step was left out: then it only counts as such.
        """
        if skipped:
            self._revived["skipped_steps"] = self._revived.get("skipped_steps", 0.0) + 1
            return
        rows = output.rows
        self._rows += rows
        self._noted.append((rows, output.losses))
        if len(self._noted) >= _AT_ONCE:
            self._sum()
        for name, count in revived.items():
            self._revived[name] = self._revived.get(name, 0.0) + count
        if self._started:
            self._timed_rows += rows
        else:
            self._started, self._since = True, time.perf_counter()

    def _sum(self) -> None:
        """Add the noted losses to the sums; waits for the device."""
        if not self._noted:
            return
        values = torch.stack([loss.double() for _, losses in self._noted for loss in losses.values()])
        of_steps = values.view(len(self._noted), -1).tolist()
        for (rows, losses), numbers in zip(self._noted, of_steps, strict=True):
            for name, number in zip(losses, numbers, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + number * rows
        self._noted.clear()

    def close(self, *, whole: bool = True) -> dict[str, float]:
        """Reduce over ranks and return the metrics. Collective.

        Args:
            whole: Whether the interval is complete; then a new one starts. An incomplete one has a speed only if none
                was reported before.
        """
        device = self._context.device
        self._sum()
        numbers = [self._rows, self._timed_rows, *self._sums.values()]
        local = torch.tensor(numbers, dtype=torch.float64, device=device)
        total = sum_over_ranks(torch.cat([local, self._usage.counts().to(device).double()]), device)
        seconds = time.perf_counter() - self._since
        rows, timed_rows = total[:2].tolist()
        sums = zip(self._sums, total[2 : len(local)], strict=True)
        values = {name: value.item() / max(rows, 1) for name, value in sums}
        values |= health(self._quantizers, self._usage, total[len(local) :]) | self._revived
        if timed_rows and (whole or not self._has_speed):
            values["samples_per_second"] = timed_rows / seconds
            self._has_speed = True
        values["resident_mb"] = max_over_ranks(resident_mb(), device)
        if device.type == "cuda":
            values["device_mb"] = max_over_ranks(device_mb(device), device)
        if whole:
            self.reset()
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's steps since the last report, so that a resumed run continues the interval."""
        self._sum()
        sums = {name: torch.tensor(value, dtype=torch.float64, device="cpu") for name, value in self._sums.items()}
        return {"rows": self._rows, "sums": sums, "revived": dict(self._revived), "usage": self._usage.counts().cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of this rank."""
        self.reset()
        self._rows, self._revived = state["rows"], dict(state["revived"])
        self._sums = {name: float(value) for name, value in state["sums"].items()}
        self._usage.set_counts(state["usage"])
