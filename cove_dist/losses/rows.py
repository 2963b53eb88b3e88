"""Means over the rows, or other parts, of all ranks."""

from __future__ import annotations

import torch

from cove_dist.distributed import world


def mean_over_rows(losses: torch.Tensor, weights: torch.Tensor, *, same_step: bool = True) -> torch.Tensor:
    """Return this rank's part of the mean loss of the global batch, a scalar; collective if rows have weights.

    Without weights it is the mean over the rows of this rank. With weights w every loss is multiplied by
    ``w * N / sum(w)`` first, where the N rows and the sum are those of all ranks in this step. Either way the result
    times `Batch.weight`, averaged over ranks, is the mean over the global batch: ``sum(w * loss) / sum(w)``. If all
    weights of a step are 0, its loss is 0.

    Args:
        losses: Losses of the rows of this rank, float32 ``[B]``.
        weights: Their sample weights, float32 ``[B]``, at least 0; empty if rows have none.
        same_step: Whether the ranks are in the same step; otherwise N and the sum are those of this rank.

    Raises:
        ValueError: The losses or weights are not ``[B]``.

    Example:
        >>> mean_over_rows(torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0]))
        tensor(1.5000)
    """
    if losses.dim() != 1:
        raise ValueError(f"the loss returned a tensor {list(losses.shape)}; it must return the loss of every row, [B]")
    if not len(weights):
        return losses.mean()
    if weights.shape != losses.shape:
        raise ValueError(f"weights {list(weights.shape)}: must be [B] like the losses, {list(losses.shape)}")
    sums = torch.stack([torch.ones_like(weights), weights]).double().sum(dim=1)
    rows, total = world().sum(sums) if same_step else sums
    scale = torch.where(total > 0, rows / total, 0.0)
    return (losses * (weights.double() * scale).float()).mean()


def rank_weights(counts: torch.Tensor) -> torch.Tensor:
    """Return this rank's counts divided by their means over the ranks: what `Batch.weight` is for rows. Collective.

    A mean over this rank's ``counts[i]`` parts, multiplied by the i-th weight and averaged over ranks, is the mean over
    the parts of all ranks.

    Args:
        counts: Numbers of parts, int64 ``[...]``, on the device of the ranks' collectives.

    Returns:
        The weights, float32 ``[...]``; exactly 1 on a single rank.

    Example:
        >>> rank_weights(torch.tensor([5, 3]))
        tensor([1., 1.])
    """
    return counts * world().size / world().sum(counts.clone())
