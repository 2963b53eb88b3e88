"""Rows that ranks hold block by block, brought together on all of them, and their gradients brought back."""

from __future__ import annotations

import torch
import torch.distributed as dist

from cove_dist.torch_compat import all_gather, reduce_scatter


def gather_rows(block: torch.Tensor, rows: int) -> torch.Tensor:
    """The whole ``[rows, d]`` of which this rank holds ``block [b, d]``. Collective, and so is its backward.

    Rank r holds the rows from ``r * ceil(rows / world_size)`` on. The gradient of a block is the sum, over ranks, of
    the gradients of its rows in what they gathered. Each way moves ``rows * d`` numbers to, or from, every rank.
    """
    return block if dist.get_world_size() == 1 else _Gather.apply(block, rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block: torch.Tensor, rows: int) -> torch.Tensor:
        ranks = dist.get_world_size()
        ctx.held, ctx.padded = len(block), -(-rows // ranks) * ranks
        whole = block.new_empty(ctx.padded, block.shape[1])
        all_gather(whole, _pad(block, ctx.padded // ranks))
        return whole[:rows]

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        own = gradient.new_empty(ctx.padded // dist.get_world_size(), gradient.shape[1])
        reduce_scatter(own, _pad(gradient, ctx.padded))
        return own[: ctx.held], None


def _pad(rows: torch.Tensor, count: int) -> torch.Tensor:
    missing = count - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, rows.shape[1])]) if missing else rows.contiguous()
