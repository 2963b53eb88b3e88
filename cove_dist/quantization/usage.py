"""Health metrics of a codebook from the counts of its codes, summed over ranks."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cove_dist.quantization.quantizer import CascadedQuantizer


def perplexity(counts: torch.Tensor) -> torch.Tensor:
    """Return ``exp`` of the entropy of the codes: ``v`` if all are used equally, 1 if only one is, nan if none is.

    Args:
        counts: Number of times each code was chosen, ``[v]``.

    Returns:
        A float64 scalar.
    """
    share = counts.double() / counts.sum()
    return torch.special.entr(share).sum().exp()


def dead_share(counts: torch.Tensor) -> torch.Tensor:
    """Return the share of codes that were never chosen, a float64 scalar in [0, 1].

    Args:
        counts: Number of times each code was chosen, ``[v]``.
    """
    return (counts == 0).double().mean()


class CodeUsage:
    """Counts how often this process chose each code of some quantizers since the last reset, in training mode."""

    def __init__(self, quantizers: Iterable[CascadedQuantizer]) -> None:
        self._quantizers = tuple(quantizers)
        self._before = self._total()

    def reset(self, quantizers: Iterable[CascadedQuantizer] | None = None) -> None:
        """Reset the counters of all quantizers, or of some of them."""
        total = self._total()
        if quantizers is not None:
            named = {id(quantizer) for quantizer in quantizers}
            kept = self._before.split([sum(q.levels) for q in self._quantizers])
            parts = zip(self._quantizers, total.split([len(k) for k in kept]), kept, strict=True)
            total = torch.cat([now if id(q) in named else before for q, now, before in parts])
        self._before = total

    def counts(self) -> torch.Tensor:
        """Return the counts int64 ``[sum of v_i]``, quantizer by quantizer, level by level, on their device."""
        return self._total() - self._before

    def set_counts(self, *counts: torch.Tensor) -> None:
        """Restore the counts of a resumed run: the sum of those of any number of former processes."""
        self._before = self._total()
        for each in counts:
            self._before -= each.to(self._before.device)

    def by_level(self, counts: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        """Split counts (possibly summed over ranks) into ``[v_i]`` per level, for each quantizer."""
        sizes = [sum(q.levels) for q in self._quantizers]
        return [part.split(q.levels) for part, q in zip(counts.split(sizes), self._quantizers, strict=True)]

    def _total(self) -> torch.Tensor:
        levels = [level for q in self._quantizers for level in q.usage()]
        return torch.cat(levels) if levels else torch.zeros(0, dtype=torch.int64, device="cpu")
