"""Gathering of row blocks on all ranks, with gradients returned to the blocks."""

from __future__ import annotations

import torch

from cove_dist.distributed import pad_rows, world


def gather_rows(block: torch.Tensor, rows: int) -> torch.Tensor:
    """Gather a matrix whose row blocks are on different ranks. Collective, including its backward pass.

    The gradient of a block is the sum over ranks of the gradients of its rows in the gathered matrices. Each direction
    moves ``rows * d`` numbers to, or from, every rank.

    Args:
        block: Rows of this rank ``[b, d]``, as in `Collectives.block_of`.
        rows: Number of rows of all ranks.

    Returns:
        The matrix ``[rows, d]``.
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
