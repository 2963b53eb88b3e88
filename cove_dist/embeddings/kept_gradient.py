"""Dense gradients of data-parallel tables on CPU, in memory that is kept and that ranks of one host share."""

from __future__ import annotations

import torch

from cove_dist.distributed import world
from cove_dist.embeddings.sparse_optimizers import LookUpRows
from cove_dist.shared_memory import HostRanks
from cove_dist.torch_compat import after_backward


class LookUpWithKeptGradient(LookUpRows):
    """The same look-up, whose backward adds to a dense gradient of the weights; see `KeptGradient`.

    The sums are those of `torch.nn.functional.embedding`, bit for bit.
    """

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[None, None, None]:
        kept = vars(ctx.weights).get("kept_gradient")
        if kept is None:
            kept = vars(ctx.weights)["kept_gradient"] = KeptGradient(ctx.weights)
        kept.add(ctx.ids, gradient)
        return None, None, None


class KeptGradient:
    """The dense gradient of a parameter with tables; averaged over ranks at the end of every backward pass.

    With new memory at every step the backward pass takes four times as long, as the system clears it page by page.

    Ranks of one host average in memory that they share. Ranks of several hosts, or on a system without such memory,
    all-reduce the gradient. Batches accumulate: the mean over ranks of a mean plus their new gradients is the mean of
    all. Construction and backward passes are collective.

    Args:
        weights: Weights of all tables ``[R * d]``; their ``grad`` is this gradient, and None starts a new one.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights, self._host = weights, HostRanks.open()
        self._of_ranks: torch.Tensor | None = None  # [W, R * d]
        self._gradient = torch.empty_like(weights.detach())
        if self._host is not None:
            self._of_ranks = self._host.shared((self._host.size, weights.numel()), weights.dtype)
            self._gradient = self._of_ranks[self._host.rank]
        self._averages = False  # at the end of this backward pass

    def add(self, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the gradients ``[N, d]`` of the rows ``ids [N]``, inside a backward pass."""
        if self._weights.grad is None:
            self._gradient.zero_()
            self._weights.grad = self._gradient
        self._gradient.view(-1, gradient.shape[1]).index_add_(0, ids, gradient)
        if world().size > 1 and not self._averages:
            self._averages = True
            after_backward(self._average)

    def _average(self) -> None:
        self._averages = False
        if self._host is None or self._of_ranks is None:
            world().sum(self._gradient).div_(world().size)
        else:
            self._host.average(self._of_ranks)
