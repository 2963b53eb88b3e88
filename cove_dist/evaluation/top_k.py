"""Metrics of ranked lists, averaged over lists."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchmetrics import Metric

from cove_dist.evaluation.declarations import HIT_RATE, NDCG, RECALL, Family, declares
from cove_dist.evaluation.positions import Positions, cumulative_discounts


@declares(NDCG, Family("mrr", "MRR", "ndcg_at"), HIT_RATE, RECALL)
class TopK(Metric):
    """NDCG, MRR, HR and recall at k from the positions of the relevant items in ranked lists, averaged over lists.

    For a list with p relevant items, of which some are at positions ``r_1 < r_2 < …`` (from 1) up to k:

    - ``ndcg@k``: ``sum 1 / log2(r + 1)`` over its ideal, that of positions 1 to ``min(p, k)`` (Järvelin and Kekäläinen,
      2002);
    - ``mrr@k``: ``1 / r_1``, or 0; ``hr@k``: 1 if there is an ``r_1``; ``recall@k``: how many of the p.

    Where scores tie, each is its expected value over all orders of the ties, see `Positions`.

    Args:
        ndcg_at: the k of NDCG and MRR.
        hit_rate_at: the k of HR and recall.
    """

    full_state_update = False
    higher_is_better = True
    ndcg: torch.Tensor
    mrr: torch.Tensor
    hr: torch.Tensor
    recall: torch.Tensor
    lists: torch.Tensor

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
        self.add_state("lists", torch.tensor(0), dist_reduce_fx="sum")

    @property
    def depth(self) -> int:
        """The length of list that is needed."""
        return max(k for ks in self.at.values() for k in ks)

    def update(self, positions: Positions, positives: torch.Tensor) -> None:
        """Add lists.

        Args:
            positions: of the relevant items of ``B`` lists; its depth is at least `depth`.
            positives: int64 ``[B]``: relevant items of each list, ranked or not; at least 1.

        Raises:
            ValueError: a list without a relevant item (on a GPU it makes the metrics nan).
        """
        if positives.device.type == "cpu" and (positives < 1).any():
            raise ValueError("positives: every list needs at least 1; leave the others out")
        ideal = cumulative_discounts(self.depth, positives.device)
        for place, k in enumerate(self.at["ndcg"]):
            self.ndcg[place] += (positions.dcg(k) / ideal[positives.clamp(max=k)]).sum()
            self.mrr[place] += positions.reciprocal_rank(k).sum()
        for place, k in enumerate(self.at["hr"]):
            self.hr[place] += positions.hit(k).sum()
            self.recall[place] += (positions.found(k) / positives).sum()
        self.lists += len(positives)

    def compute(self) -> dict[str, torch.Tensor]:
        """Return float64 scalars ``ndcg@k`` and so on, nan without lists; and ``lists`` (int64)."""
        means = {
            f"{name}@{k}": total / self.lists
            for name, ks in self.at.items()
            for k, total in zip(ks, getattr(self, name), strict=True)
        }
        return means | {"lists": self.lists.clone()}


@declares(Family("coverage", "coverage", "hit_rate_at"))
class Coverage(Metric):
    """The share of all items that are in the first k of any user's list. Memory: 4 bytes an item.

    It is a property of the lists as they are recommended, so of equal scores it counts the items that they show: the
    lower ids.

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
        never = torch.iinfo(torch.int32).max
        self.add_state("best", torch.full((num_items,), never, dtype=torch.int32), dist_reduce_fx="min")

    def update(self, items: torch.Tensor) -> None:
        """Add lists: int64 ``[B, K]``, best first, -1 where a list is shorter."""
        ranks = torch.arange(items.shape[1], dtype=torch.int32, device=items.device).expand(items.shape)
        listed = items >= 0
        self.best.scatter_reduce_(0, items[listed], ranks[listed], "amin")

    def compute(self) -> dict[str, torch.Tensor]:
        return {f"coverage@{k}": (self.best < k).double().mean() for k in self.at}


class UserCount(Metric):
    """How many users rows are of, where all rows of a user are on one rank, one after the other."""

    full_state_update = False
    users: torch.Tensor
    falls: torch.Tensor

    def __init__(self) -> None:
        super().__init__(compute_with_cache=False)
        self.add_state("users", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("falls", torch.tensor(0), dist_reduce_fx="sum")
        self._last: torch.Tensor | None = None

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self._last = None

    def update(self, users: torch.Tensor) -> None:
        """Add rows by their users: int64 ``[B]``, never falling, within a batch and from batch to batch."""
        before = users.new_tensor([-1]) if self._last is None else self._last
        steps = torch.cat([before, users]).diff()
        self.users += (steps != 0).sum()
        self.falls += (steps < 0).sum()
        self._last = torch.cat([before, users])[-1:]

    def compute(self) -> torch.Tensor:
        """Return the number of users, int64.

        Raises:
            ValueError: rows are not sorted by user.
        """
        if self.falls > 0:
            raise ValueError(f"users fall {int(self.falls)} times from one row to the next: sort the rows by user")
        return self.users.clone()
