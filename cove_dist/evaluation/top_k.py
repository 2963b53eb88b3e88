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
    - ``mrr@k``: ``1 / r_1``, or 0; ``hr@k``: 1 if ``r_1`` exists; ``recall@k``: the share of the p items.

    Ties count with their expected value over all orders (see `Positions`).

    Args:
        ndcg_at: Cutoffs k of NDCG and MRR.
        hit_rate_at: Cutoffs k of HR and recall.
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
        """The required length of lists."""
        return max(k for ks in self.at.values() for k in ks)

    def update(self, positions: Positions, positives: torch.Tensor) -> None:
        """Add a batch of lists.

        Args:
            positions: Positions of the relevant items of ``B`` lists, with a depth of at least `depth`.
            positives: Number of relevant items of each list, ranked or not, int64 ``[B]``, at least 1.

        Raises:
            ValueError: A list has no relevant item (on a GPU the metrics are nan instead).
        """
        if positives.device.type == "cpu" and (positives < 1).any():
            raise ValueError("positives: every list needs at least 1; remove lists without positives")
        ideal = cumulative_discounts(self.depth, positives.device)
        for index, k in enumerate(self.at["ndcg"]):
            self.ndcg[index] += (positions.dcg(k) / ideal[positives.clamp(max=k)]).sum()
            self.mrr[index] += positions.reciprocal_rank(k).sum()
        for index, k in enumerate(self.at["hr"]):
            self.hr[index] += positions.hit(k).sum()
            self.recall[index] += (positions.found(k) / positives).sum()
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
    """The share of all items that are in the first k of any user's list. Memory: 4 bytes per item.

    It is a property of the recommended lists, so among equal scores it counts the listed items, those of lower ids.

    Args:
        num_items: Number of all items.
        at: Cutoffs k.
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
        """Add lists int64 ``[B, K]``, best first, padded with -1."""
        ranks = torch.arange(items.shape[1], dtype=torch.int32, device=items.device).expand(items.shape)
        listed = items >= 0
        self.best.scatter_reduce_(0, items[listed], ranks[listed], "amin")

    def compute(self) -> dict[str, torch.Tensor]:
        return {f"coverage@{k}": (self.best < k).double().mean() for k in self.at}


class UserCount(Metric):
    """Counts distinct users of rows that are sorted by user, with all rows of a user on one rank."""

    full_state_update = False
    users: torch.Tensor
    falls: torch.Tensor

    def __init__(self) -> None:
        super().__init__(compute_with_cache=False)
        self.add_state("users", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("falls", torch.tensor(0), dist_reduce_fx="sum")
        self._last: torch.Tensor | None = None

    def reset(self) -> None:
        """Reset the count."""
        super().reset()
        self._last = None

    def update(self, users: torch.Tensor) -> None:
        """Add the users of rows, int64 ``[B]``, sorted within and across batches."""
        before = users.new_tensor([-1]) if self._last is None else self._last
        steps = torch.cat([before, users]).diff()
        self.users += (steps != 0).sum()
        self.falls += (steps < 0).sum()
        self._last = torch.cat([before, users])[-1:]

    def compute(self) -> torch.Tensor:
        """Return the number of users, int64.

        Raises:
            ValueError: Rows are not sorted by user.
        """
        if self.falls > 0:
            raise ValueError(f"users decrease {int(self.falls)} times from one row to the next: sort the rows by user")
        return self.users.clone()
