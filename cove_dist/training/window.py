"""Figures of the steps since the last report, summed where they arise and reduced over ranks only when reported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cove_dist.errors import TrainingError
from cove_dist.quantization import CascadedQuantizer, perplexity
from cove_dist.tasks.ctr import Predictions
from cove_dist.training.distributed import Runtime, max_over_ranks, sum_over_ranks
from cove_dist.training.memory import resident_mb


class Window:
    """Loss parts (means over rows), code perplexity per level, samples per second, the largest rank's resident memory.

    Args:
        quantizers: whose code usage is reported, by entity.
        runtime: of this rank.
    """

    def __init__(self, quantizers: dict[str, CascadedQuantizer], runtime: Runtime) -> None:
        self._quantizers = quantizers
        self._runtime = runtime
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._sums: dict[str, torch.Tensor] = {}
        self._rows = 0
        self._since = time.perf_counter()
        for quantizer in self._quantizers.values():
            quantizer.reset_usage()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave time that is not spent training out of the samples per second."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def add(self, predictions: Predictions) -> None:
        """Take in a step, without waiting for the device."""
        rows = len(predictions.logits)
        self._rows += rows
        for name, loss in predictions.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss.double() * rows

    def close(self) -> dict[str, float]:
        """Reduce over ranks, return the figures and begin anew. A collective call.

        Raises:
            TrainingError: a loss is not finite.
        """
        usage = {name: [level.double().cpu() for level in q.usage()] for name, q in self._quantizers.items()}
        local = torch.stack([torch.tensor(float(self._rows)), *(x.cpu() for x in self._sums.values())]).double()
        flat = torch.cat([local, *(level for levels in usage.values() for level in levels)])
        total = sum_over_ranks(flat, self._runtime.device)
        seconds = time.perf_counter() - self._since
        rows = total[0].item()
        figures = {name: value.item() / rows for name, value in zip(self._sums, total[1 : len(local)], strict=True)}
        counts = total[len(local) :].split([len(level) for levels in usage.values() for level in levels])
        names = [f"perplexity_{name}_{i}" for name, levels in usage.items() for i in range(1, len(levels) + 1)]
        figures |= {name: float(perplexity(level)) for name, level in zip(names, counts, strict=True)}
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
