"""Health of a codebook, from how often each of its codes was chosen. Counts of several ranks are added first."""

from __future__ import annotations

import torch


def perplexity(counts: torch.Tensor) -> torch.Tensor:
    """``exp`` of the entropy of the codes: ``v`` when all are used alike, 1 when one takes all, nan when none is used.

    Args:
        counts: ``[v]``, how often each code was chosen.

    Returns:
        float64 scalar.
    """
    share = counts.double() / counts.sum()
    return torch.special.entr(share).sum().exp()


def dead_share(counts: torch.Tensor) -> torch.Tensor:
    """The share of codes that were never chosen: float64 scalar in [0, 1].

    Args:
        counts: ``[v]``, how often each code was chosen.
    """
    return (counts == 0).double().mean()
