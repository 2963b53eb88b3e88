"""Figures of the steps since the last report, summed where they arise and reduced over ranks only when reported."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from cove_dist.errors import TrainingError
from cove_dist.quantization import UsageSince
from cove_dist.tasks.base import StepOutput
from cove_dist.training.codebooks import Quantizers, health
from cove_dist.training.distributed import Runtime, max_over_ranks, sum_over_ranks
from cove_dist.training.memory import resident_mb


class Window:
    """Loss parts (means over rows), health of the codebooks, samples per second, the largest rank's resident memory.

    Args:
        quantizers: whose health is reported, by entity.
        runtime: of this rank.
    """

    def __init__(self, quantizers: Quantizers, runtime: Runtime) -> None:
        self._quantizers = quantizers
        self._usage = UsageSince(quantizers.values())
        self._runtime = runtime
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._sums: dict[str, torch.Tensor] = {}
        self._revived: dict[str, float] = {}
        self._rows = 0
        self._since = time.perf_counter()
        self._usage.restart()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave time that is not spent training out of the samples per second."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def add(self, output: StepOutput, revived: Mapping[str, float]) -> None:
        """Take in a step and the codes revived after it, the same on all ranks; without waiting for the device."""
        rows = output.rows
        self._rows += rows
        for name, loss in output.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss.double() * rows
        for name, count in revived.items():
            self._revived[name] = self._revived.get(name, 0.0) + count

    def close(self) -> dict[str, float]:
        """Reduce over ranks, return the figures and begin anew. A collective call.

        Raises:
            TrainingError: a loss is not finite.
        """
        local = torch.stack([torch.tensor(float(self._rows)), *(x.cpu() for x in self._sums.values())]).double()
        total = sum_over_ranks(torch.cat([local, self._usage.counts().double().cpu()]), self._runtime.device)
        seconds = time.perf_counter() - self._since
        rows = total[0].item()
        figures = {name: value.item() / rows for name, value in zip(self._sums, total[1 : len(local)], strict=True)}
        figures |= health(self._quantizers, self._usage, total[len(local) :]) | self._revived
        figures["samples_per_second"] = rows / seconds
        figures["resident_mb"] = max_over_ranks(resident_mb(), self._runtime.device)
        _refuse_nan(figures)
        self.restart()
        return figures


def _refuse_nan(figures: dict[str, float]) -> None:
    broken = {name: value for name, value in figures.items() if not torch.isfinite(torch.tensor(value))}
    if broken:
        raise TrainingError(
            f"loss not finite: {broken}. Lower trainer.optimizer.learning_rate or embeddings.optimizer.learning_rate,"
            " set trainer.gradient_clip_norm, or look for the step with trainer.debug=true."
        )
