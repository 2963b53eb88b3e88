"""Ranking metrics of the rows of each user, or other group, averaged over groups; vectorized over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.declarations import HIT_RATE, NDCG, Family, declares
from cove_dist.evaluation.positions import Positions, cumulative_discounts


@declares(
    Family("gauc", "GAUC"),
    Family("mean_auc", "mean AUC"),
    Family("mrr", "MRR"),
    Family("mind_mrr", "MRR (MIND)"),
    NDCG,
    HIT_RATE,
)
class UserRanking(CheckedMetric):
    """GAUC, mean AUC, MRR, NDCG@k and HR@k from batches of complete users.

    Users may be replaced by any other group, such as the rows of one request (an impression list).

    - ``gauc``: the AUC of each user with both classes, ties one half, weighted by the user's number of samples (H. Zhu
      et al., "Optimized Cost per Click in Taobao Display Advertising", 2017).
    - ``mean_auc``: the same with equal weights: the AUC of MIND's leaderboard if the groups are impressions.
    - ``mrr``: ``1 / rank`` of the user's first positive (Voorhees, "The TREC-8 Question Answering Track Report", 1999);
      ``mind_mrr``: the mean of ``1 / rank`` of all the user's positives, as on MIND's leaderboard (F. Wu et al.,
      "MIND", ACL 2020, its evaluation program). Both are means over users with a positive, and equal if no user has
      two positives.
    - ``ndcg@k``: binary gain, discount ``1 / log2(rank + 1)``, over the ideal of the user's first k positives (Järvelin
      and Kekäläinen, 2002); ``hr@k``: 1 if a positive is among the first k. Both are means over users with a positive.

    Rows of equal score contribute their expected value over all orders (see `Positions`): the order of rows does not
    matter, and a constant model gets the average value of a random order.

    Args:
        ndcg_at: Cutoffs k of NDCG@k.
        hit_rate_at: Cutoffs k of HR@k.
    """

    higher_is_better = True
    scores_name = "logits"
    auc_total: torch.Tensor
    auc_weight: torch.Tensor
    auc_sum: torch.Tensor
    auc_users: torch.Tensor
    users: torch.Tensor
    reciprocal: torch.Tensor
    ndcg_total: torch.Tensor
    hits: torch.Tensor

    def __init__(self, ndcg_at: Sequence[int] = (1, 5, 10), hit_rate_at: Sequence[int] = (5,)) -> None:
        super().__init__()
        if any(k < 1 for k in (*ndcg_at, *hit_rate_at)):
            raise ValueError(f"ndcg_at = {list(ndcg_at)}, hit_rate_at = {list(hit_rate_at)}: must be at least 1")
        self.ndcg_at, self.hit_rate_at = tuple(ndcg_at), tuple(hit_rate_at)
        self.depth = max((*ndcg_at, *hit_rate_at), default=0)
        for name, shape, dtype in (
            ("auc_total", (), torch.float64),
            ("auc_weight", (), torch.int64),
            ("auc_sum", (), torch.float64),
            ("auc_users", (), torch.int64),
            ("users", (), torch.int64),
            ("reciprocal", (2,), torch.float64),
            ("ndcg_total", (len(ndcg_at),), torch.float64),
            ("hits", (len(hit_rate_at),), torch.float64),
        ):
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, labels: torch.Tensor, users: torch.Tensor) -> None:
        """Add complete users, without rows in other batches or on other ranks.

        Args:
            logits: Logits, float ``[B]``.
            labels: Labels ``[B]``, 0 or 1.
            users: Users int64 ``[B]``, in any order.

        Raises:
            ValueError: Shapes differ or a label is neither 0 nor 1.
            FloatingPointError: Logits are not finite (on a GPU: raised by `compute`).
        """
        self.check_predictions(logits, labels)
        if users.shape != logits.shape:
            raise ValueError(f"users {list(users.shape)}: must be [B] like the logits, {list(logits.shape)}")
        ranked = _rank(logits, labels, users)

        positives, sizes = ranked.per_user(ranked.labels), ranked.per_user(torch.ones_like(ranked.labels))
        both = (positives > 0) & (positives < sizes)
        pairs = (positives * (sizes - positives))[both]
        areas = ranked.per_user(ranked.wins())[both] / pairs
        self.auc_total += (sizes[both] * areas).sum()
        self.auc_sum += areas.sum()
        self.auc_weight += sizes[both].sum().long()
        self.auc_users += both.sum()

        self.users += (positives > 0).sum()
        self.reciprocal += torch.stack([ranked.first_reciprocals().sum(), ranked.mean_reciprocals().sum()])
        relevant = ranked.labels > 0
        group = ranked.group[relevant]
        positions = Positions(
            ranked.user[relevant], ranked.above[group], ranked.tied[group], len(positives), self.depth
        )
        ideal = cumulative_discounts(self.depth, logits.device)
        for i, k in enumerate(self.ndcg_at):
            best = ideal[positives.long().clamp(min=1, max=k)]  # a user without positives has no gain
            self.ndcg_total[i] += (positions.dcg(k) / best).sum()
        for i, k in enumerate(self.hit_rate_at):
            self.hits[i] += positions.hit(k).sum()

    def compute(self) -> dict[str, torch.Tensor]:
        """Return float64 scalars by the names above, nan without users, and the numbers of users.

        ``users`` (int64) is the number for NDCG and HR, ``gauc_users`` for GAUC and mean AUC.
        """
        self.raise_if_refused()
        ndcg = zip(self.ndcg_at, self.ndcg_total / self.users, strict=True)
        hit_rate = zip(self.hit_rate_at, self.hits / self.users, strict=True)
        return {
            "gauc": self.auc_total / self.auc_weight,
            "mean_auc": self.auc_sum / self.auc_users,
            **dict(zip(("mrr", "mind_mrr"), self.reciprocal / self.users, strict=True)),
            **{f"ndcg@{k}": value for k, value in ndcg},
            **{f"hr@{k}": value for k, value in hit_rate},
            "users": self.users.clone(),
            "gauc_users": self.auc_users.clone(),
        }


@dataclass(frozen=True)
class _Ranked:
    """Rows ``[B]`` sorted by user, then by decreasing score, in groups ``[G]`` of one user's rows of equal score.

    Attributes:
        labels: Labels, float64 ``[B]``.
        user: Index of each row's user, 0, 1, …, int64 ``[B]``.
        group: Index of each row's group, int64 ``[B]``.
        above: Number of rows of the group's user with a higher score, int64 ``[G]``.
        tied: Number of rows of the group, int64 ``[G]``.
    """

    labels: torch.Tensor
    user: torch.Tensor
    group: torch.Tensor
    above: torch.Tensor
    tied: torch.Tensor

    def per_user(self, values: torch.Tensor) -> torch.Tensor:
        return _sums(values, self.user)

    def wins(self) -> torch.Tensor:
        """Return how many of its user's negatives each positive outranks, ties one half; 0 for negatives: ``[B]``."""
        negative = 1 - self.labels
        tied = _sums(negative, self.group)
        # Negatives up to a group, and up to the end of its user: the difference is ranked below the group.
        through_group = tied.cumsum(0)[self.group]
        through_user = self.per_user(negative).cumsum(0)[self.user]
        return self.labels * (through_user - through_group + tied[self.group] / 2)

    def mean_reciprocals(self) -> torch.Tensor:
        """Return the expected mean of ``1 / rank`` of each user's positives, 0 without: float64 ``[U]``."""
        above, tied = self.above[self.group].double(), self.tied[self.group].double()
        # For a positive among n tied rows below a others: the mean of 1 / (a + 1), …, 1 / (a + n).
        expected = (torch.digamma(above + tied + 1) - torch.digamma(above + 1)) / tied
        expected = torch.where(tied == 1, 1 / (above + 1), expected)  # exactly
        return self.per_user(self.labels * expected) / self.per_user(self.labels).clamp(min=1)

    def first_reciprocals(self) -> torch.Tensor:
        """Return the expected ``1 / rank`` of each user's first positive, 0 without: float64 ``[U]``."""
        positives = _sums(self.labels, self.group)
        begins = self.tied.cumsum(0) - self.tied
        owner = self.user[begins]
        found = (positives > 0).nonzero().squeeze(1)
        users = int(self.user[-1]) + 1 if len(self.user) else 0
        # First group of tied rows with a positive; a sentinel for users without positives.
        first = owner.new_full((users,), len(begins)).scatter_reduce_(0, owner[found], found, "amin")
        rows = (self.group == first[self.user]).nonzero().squeeze(1)
        group = self.group[rows]
        position, n, p = rows - begins[group], self.tied[group].double(), positives[group]
        reciprocals = _chance_of_first(position.double(), n, p) / (self.above[group] + position + 1)
        return self.labels.new_zeros(users).index_add_(0, self.user[rows], reciprocals)


def _chance_of_first(position: torch.Tensor, n: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Return the probability that the first of p positives among n rows in random order is at ``position``, from 0.

    It is the share of orders with only negatives before it, ``(n - p)! (n - position)! / ((n - p - position)! n!)``,
    times ``p / (n - position)``.
    """
    left = n - p - position
    before = torch.lgamma(n - p + 1) + torch.lgamma(n - position + 1) - torch.lgamma(n + 1)
    before = (before - torch.lgamma(left.clamp(min=0) + 1)).exp()
    return torch.where(left >= 0, before * p / (n - position), 0.0)


def _rank(logits: torch.Tensor, labels: torch.Tensor, users: torch.Tensor) -> _Ranked:
    order = torch.sort(logits, descending=True, stable=True).indices
    order = order[torch.sort(users[order], stable=True).indices]
    _, user, sizes = torch.unique_consecutive(users[order], return_inverse=True, return_counts=True)
    scores = logits[order]
    starts = torch.ones_like(user, dtype=torch.bool)
    starts[1:] = (user[1:] != user[:-1]) | (scores[1:] != scores[:-1])
    group = starts.cumsum(0) - 1
    first = starts.nonzero().squeeze(1)
    above = first - (sizes.cumsum(0) - sizes)[user[first]]
    return _Ranked(labels[order].double(), user, group, above, _sums(torch.ones_like(group), group))


def _sums(values: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
    """Sum over sorted segments ``0 … S-1``: ``[B] -> [S]``."""
    count = int(segment[-1]) + 1 if len(segment) else 0
    return values.new_zeros(count).index_add_(0, segment, values)
