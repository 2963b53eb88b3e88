"""Ranking metrics of each user's own candidates, averaged over users. Vectorized: no loop over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchmetrics import Metric

from cove_dist.evaluation.checks import check_predictions


class UserRanking(Metric):
    """GAUC, NDCG@k and HR@k from batches of whole users.

    - ``gauc``: the AUC of each user with both classes, ties one half, weighted by the user's number of samples (H. Zhu
      et al., "Optimized Cost per Click in Taobao Display Advertising", 2017).
    - ``ndcg@k``: binary gain, discount ``1 / log2(rank + 1)``, over the ideal of the user's first k positives (Järvelin
      and Kekäläinen, 2002); ``hr@k``: 1 if a positive is among the first k. Both are means over users with a positive,
      and equal scores rank in row order.

    Args:
        ndcg_at: the k of NDCG@k.
        hit_rate_at: the k of HR@k.
    """

    full_state_update = False
    higher_is_better = True
    auc_total: torch.Tensor
    auc_weight: torch.Tensor
    auc_users: torch.Tensor
    users: torch.Tensor
    ndcg_total: torch.Tensor
    hits: torch.Tensor

    def __init__(self, ndcg_at: Sequence[int] = (1, 5, 10), hit_rate_at: Sequence[int] = (5,)) -> None:
        super().__init__(compute_with_cache=False)
        if any(k < 1 for k in (*ndcg_at, *hit_rate_at)):
            raise ValueError(f"ndcg_at = {list(ndcg_at)}, hit_rate_at = {list(hit_rate_at)}: must be at least 1")
        self.ndcg_at, self.hit_rate_at = tuple(ndcg_at), tuple(hit_rate_at)
        for name, shape, dtype in (
            ("auc_total", (), torch.float64),
            ("auc_weight", (), torch.int64),
            ("auc_users", (), torch.int64),
            ("users", (), torch.int64),
            ("ndcg_total", (len(ndcg_at),), torch.float64),
            ("hits", (len(hit_rate_at),), torch.int64),
        ):
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, labels: torch.Tensor, users: torch.Tensor) -> None:
        """Add whole users: no row of theirs may be in another batch, nor on another rank.

        Args:
            logits: float ``[B]``.
            labels: ``[B]``, 0 or 1.
            users: int64 ``[B]``, in any order.

        Raises:
            ValueError: shapes differ or a label is neither 0 nor 1.
            FloatingPointError: logits that are not finite.
        """
        check_predictions(logits, labels)
        if users.shape != logits.shape:
            raise ValueError(f"users {list(users.shape)}: must be [B] like the logits, {list(logits.shape)}")
        ranked = _rank(logits, labels, users)

        positives, sizes = ranked.per_user(ranked.labels), ranked.per_user(torch.ones_like(ranked.labels))
        both = (positives > 0) & (positives < sizes)
        pairs = (positives * (sizes - positives))[both]
        self.auc_total += (sizes[both] * ranked.per_user(_wins(ranked))[both] / pairs).sum()
        self.auc_weight += sizes[both].sum().long()
        self.auc_users += both.sum()

        counted = positives > 0
        self.users += counted.sum()
        positions = torch.arange(max(self.ndcg_at, default=0), device=logits.device)
        discounts = torch.log2(positions.double() + 2).reciprocal()
        ideal = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])
        for i, k in enumerate(self.ndcg_at):
            top = ranked.rank < k
            gain = torch.zeros_like(ranked.labels)
            gain[top] = ranked.labels[top] * discounts[ranked.rank[top]]
            best = ideal[positives[counted].long().clamp(max=k)]
            self.ndcg_total[i] += (ranked.per_user(gain)[counted] / best).sum()
        for i, k in enumerate(self.hit_rate_at):
            self.hits[i] += (ranked.per_user(ranked.labels * (ranked.rank < k)) > 0).sum()

    def compute(self) -> dict[str, torch.Tensor]:
        """Float64 scalars ``gauc``, ``ndcg@k``, ``hr@k``, nan where no user counts; and how many users counted.

        ``users`` (int64) counts in NDCG and HR, ``gauc_users`` in GAUC.
        """
        ndcg = zip(self.ndcg_at, self.ndcg_total / self.users, strict=True)
        hit_rate = zip(self.hit_rate_at, self.hits.double() / self.users, strict=True)
        return {
            "gauc": self.auc_total / self.auc_weight,
            **{f"ndcg@{k}": value for k, value in ndcg},
            **{f"hr@{k}": value for k, value in hit_rate},
            "users": self.users.clone(),
            "gauc_users": self.auc_users.clone(),
        }


@dataclass(frozen=True)
class _Ranked:
    """Rows ``[B]`` by user, then by falling score, then by row; ``user`` numbers the users 0, 1, …; ``rank`` from 0."""

    scores: torch.Tensor
    labels: torch.Tensor  # float64
    user: torch.Tensor
    rank: torch.Tensor

    def per_user(self, values: torch.Tensor) -> torch.Tensor:
        return _sums(values, self.user)


def _rank(logits: torch.Tensor, labels: torch.Tensor, users: torch.Tensor) -> _Ranked:
    order = torch.sort(logits, descending=True, stable=True).indices
    order = order[torch.sort(users[order], stable=True).indices]
    _, user, sizes = torch.unique_consecutive(users[order], return_inverse=True, return_counts=True)
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[user]
    return _Ranked(logits[order], labels[order].double(), user, rank)


def _wins(ranked: _Ranked) -> torch.Tensor:
    """For each positive, how many of its user's negatives it outranks, ties one half; 0 for negatives: ``[B]``."""
    negative = 1 - ranked.labels
    group_starts = torch.ones_like(ranked.user, dtype=torch.bool)  # a group: one user's rows of one score
    group_starts[1:] = (ranked.user[1:] != ranked.user[:-1]) | (ranked.scores[1:] != ranked.scores[:-1])
    group = group_starts.cumsum(0) - 1
    tied = _sums(negative, group)
    # Negatives from the first row through a group, and through its user: the difference is ranked below the group.
    through_group = tied.cumsum(0)[group]
    through_user = ranked.per_user(negative).cumsum(0)[ranked.user]
    return ranked.labels * (through_user - through_group + tied[group] / 2)


def _sums(values: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
    """Sums over segments ``0 … S-1``, rising: ``[B] -> [S]``."""
    count = int(segment[-1]) + 1 if len(segment) else 0
    return values.new_zeros(count).index_add_(0, segment, values)
