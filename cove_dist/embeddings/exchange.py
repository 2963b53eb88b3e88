"""Rows that the ranks hold in blocks, gathered on all of them, and their gradients returned."""

from __future__ import annotations

import torch

from cove_dist.distributed import pad_rows, world


def gather_rows(block: torch.Tensor, rows: int) -> torch.Tensor:
    """Gather a matrix of which every rank holds a block. Collective, and so is its backward pass.

    The gradient of a block is the sum, over the ranks, of the gradients of its rows in what they gathered. Each
    direction moves ``rows * d`` numbers to, or from, every rank.

    Args:
        block: ``[b, d]``, the rows of `Collectives.block_of` of this rank.
        rows: number of rows of all ranks.

    Returns:
        ``[rows, d]``.
    """
    return block if world().size == 1 else _Gather.apply(block, rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block: torch.Tensor, rows: int) -> torch.Tensor:
        ranks = world()
        ctx.held, ctx.block_size = len(block), -(-rows // ranks.size)
        return ranks.gather_padded(block, 0.0, ctx.block_size)[:rows]

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        ranks = world()
        return ranks.scatter_sum(pad_rows(gradient, ctx.block_size * ranks.size))[: ctx.held], None
