"""Metrics of one ranked list a user, averaged over users."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchmetrics import Metric

from cove_dist.evaluation.declarations import HIT_RATE, NDCG, RECALL, Family, declares


@declares(NDCG, Family("mrr", "MRR", "ndcg_at"), HIT_RATE, RECALL)
class TopK(Metric):
    """NDCG, MRR, HR and recall at k from where the relevant items stand in each user's list.

    For a user with p relevant items, of which some stand at ranks ``r_1 < r_2 < …`` (from 1) up to k:

    - ``ndcg@k``: ``sum 1 / log2(r + 1)`` over its ideal, that of ranks 1 to ``min(p, k)`` (Järvelin and Kekäläinen,
      2002);
    - ``mrr@k``: ``1 / r_1``, or 0; ``hr@k``: 1 if there is an ``r_1``; ``recall@k``: how many of the p.

    Args:
        ndcg_at: the k of NDCG and MRR.
        hit_rate_at: the k of HR and recall.
    """

    full_state_update = False
    higher_is_better = True
    users: torch.Tensor

    def __init__(self, ndcg_at: Sequence[int] = (5, 10), hit_rate_at: Sequence[int] = (5, 10)) -> None:
        super().__init__(compute_with_cache=False)
        self.at = {
            "ndcg": tuple(ndcg_at),
            "mrr": tuple(ndcg_at),
            "hr": tuple(hit_rate_at),
            "recall": tuple(hit_rate_at),
        }
        for name, ks in self.at.items():
            self.add_state(name, torch.zeros(len(ks), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("users", torch.tensor(0), dist_reduce_fx="sum")

    @property
    def depth(self) -> int:
        """The length of list that is needed."""
        return max(k for ks in self.at.values() for k in ks)

    def update(self, relevant: torch.Tensor, positives: torch.Tensor) -> None:
        """Add users.

        Args:
            relevant: bool ``[B, K]``: whether the item at each rank is relevant; K at least `depth`, or all items.
            positives: int64 ``[B]``: relevant items of each user, in the list or not; at least 1.

        Raises:
            ValueError: a user without a relevant item.
        """
        if (positives < 1).any():
            raise ValueError("positives: every user needs at least 1; leave the others out")
        gain = relevant.double()
        ranks = torch.arange(1, gain.shape[1] + 1, device=gain.device, dtype=torch.float64)
        discounts = torch.log2(ranks + 1).reciprocal()
        ideal = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])
        first = torch.where(gain.cumsum(1) == 1, gain, 0) / ranks  # at the first relevant one, and there alone
        for place, k in enumerate(self.at["ndcg"]):
            best = ideal[positives.clamp(max=min(k, gain.shape[1]))]
            self.ndcg[place] += ((gain[:, :k] @ discounts[:k]) / best).sum()
            self.mrr[place] += first[:, :k].sum()
        for place, k in enumerate(self.at["hr"]):
            found = gain[:, :k].sum(dim=1)
            self.hr[place] += (found > 0).sum()
            self.recall[place] += (found / positives).sum()
        self.users += len(positives)

    def compute(self) -> dict[str, torch.Tensor]:
        """Float64 scalars ``ndcg@k`` and so on, nan without users; and ``users`` (int64)."""
        means = {
            f"{name}@{k}": total / self.users
            for name, ks in self.at.items()
            for k, total in zip(ks, getattr(self, name), strict=True)
        }
        return means | {"users": self.users.clone()}


@declares(Family("coverage", "coverage", "hit_rate_at"))
class Coverage(Metric):
    """The share of all items that are in the first k of any user's list. Memory: 4 bytes an item.

    Args:
        num_items: in all.
        at: the k.
    """

    full_state_update = False
    higher_is_better = True
    best: torch.Tensor

    def __init__(self, num_items: int, at: Sequence[int] = (5, 10)) -> None:
        super().__init__(compute_with_cache=False)
        self.at = tuple(at)
        never = torch.full((num_items,), torch.iinfo(torch.int32).max, dtype=torch.int32)
        self.add_state("best", never, dist_reduce_fx="min")

    def update(self, items: torch.Tensor) -> None:
        """Add lists: int64 ``[B, K]``, best first, -1 where a list is shorter."""
        ranks = torch.arange(items.shape[1], dtype=torch.int32, device=items.device).expand(items.shape)
        listed = items >= 0
        self.best.scatter_reduce_(0, items[listed], ranks[listed], "amin")

    def compute(self) -> dict[str, torch.Tensor]:
        return {f"coverage@{k}": (self.best < k).double().mean() for k in self.at}
