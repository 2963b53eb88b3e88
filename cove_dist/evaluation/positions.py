"""Positions of relevant items in ranked lists, and the expected DCG, recall, hit rate and reciprocal rank.

Items of equal score are unordered: each metric is its expected value over all their orders, as in scikit-learn's
``ndcg_score``. A constant model gets the average value of a random order.

Shapes: ``B`` lists, ``P`` relevant items of all lists, ``K`` the largest k.
"""

from __future__ import annotations

from functools import cached_property

import torch


def cumulative_discounts(count: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Return the DCG of ``0, 1, …, count`` relevant items at the top: float64 ``[count + 1]``.

    The discount of position r, from 1, is ``1 / log2(r + 1)`` (Järvelin and Kekäläinen, 2002).
    """
    positions = torch.arange(1, count + 1, dtype=torch.float64, device=device)
    discounts = torch.log2(positions + 1).reciprocal()
    return torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])


class Positions:
    """The positions of relevant items in ranked lists, ties included.

    A relevant item with ``above`` items of higher score and ``tied`` items of its score, itself included, has each of
    the positions ``above + 1 … above + tied`` with equal probability.

    Args:
        lists: List of each relevant item, ``0 … B-1``, in any order, int64 ``[P]``.
        above: Number of items with a higher score, int64 ``[P]``; at least ``K`` for items after the first ``K``.
        tied: Number of items with the same score, int64 ``[P]``, at least 1.
        count: Number of lists ``B``.
        depth: Largest cutoff ``K``.
    """

    def __init__(self, lists: torch.Tensor, above: torch.Tensor, tied: torch.Tensor, count: int, depth: int) -> None:
        self.lists, self.above, self.tied, self.count, self.depth = lists, above.clamp(max=depth), tied, count, depth

    @classmethod
    def of_mask(cls, relevant: torch.Tensor, depth: int) -> Positions:
        """Build positions from lists in a fixed order: bool ``[B, n]``, true at positions of relevant items."""
        lists, above = relevant.nonzero().unbind(1)
        return cls(lists, above, torch.ones_like(above), len(relevant), depth)

    def dcg(self, k: int) -> torch.Tensor:
        """Return the expected DCG of the first k: float64 ``[B]``."""
        discounts = cumulative_discounts(self.depth, self.above.device)
        first, last = self._span(k)
        return self._per_list((discounts[last] - discounts[first]) / self.tied)

    def found(self, k: int) -> torch.Tensor:
        """Return the expected number of relevant items among the first k: float64 ``[B]``."""
        first, last = self._span(k)
        return self._per_list((last - first).double() / self.tied)

    def hit(self, k: int) -> torch.Tensor:
        """Return the probability that a relevant item is among the first k: float64 ``[B]``."""
        misses, above, _ = self._first
        return 1 - misses.gather(1, (k - above).clamp(min=0).unsqueeze(1)).squeeze(1)

    def reciprocal_rank(self, k: int) -> torch.Tensor:
        """Return the expected ``1 / r`` of the first relevant item at position r, 0 for r > k: float64 ``[B]``."""
        _, above, first_at = self._first
        positions = above.unsqueeze(1) + torch.arange(1, self.depth + 1, device=above.device)
        return (first_at * (positions <= k) / positions).sum(dim=1)

    def _span(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the possible positions of each relevant item among the first k: from, to (exclusive), from 0."""
        return self.above.clamp(max=k), (self.above + self.tied).clamp(max=k)

    def _per_list(self, values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(self.count).index_add_(0, self.lists, values)

    @cached_property
    def _first(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Analyze each list's first group of tied items with a relevant one: n items, p of them relevant.

        Returns:
            The probability that the group's first 0, 1, …, K items have no relevant one, ``[B, K + 1]``: the product of
            ``(n - p - i) / (n - i)``; the items above the group ``[B]``; and the probability that the group's first
            relevant item is its item ``0 … K-1``, ``[B, K]``.
        """
        above = self.above.new_full((self.count,), self.depth).scatter_reduce_(0, self.lists, self.above, "amin")
        own = self.above == above[self.lists]
        size = torch.ones_like(above).scatter_reduce_(0, self.lists[own], self.tied[own], "amax")
        relevant = torch.zeros_like(above).index_add_(0, self.lists[own], torch.ones_like(self.tied[own]))
        drawn = torch.arange(self.depth, device=above.device)
        left = (size.unsqueeze(1) - drawn).double()
        irrelevant = (left - relevant.unsqueeze(1)).clamp(min=0)
        misses = torch.cat([left.new_ones(self.count, 1), (irrelevant / left.clamp(min=1)).cumprod(dim=1)], dim=1)
        return misses, above, misses[:, :-1] - misses[:, 1:]
