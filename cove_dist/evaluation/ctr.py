"""Metrics of click-through rate prediction, from a stream of batches on each rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.classification import SAMPLE_METRICS, BinnedAUC
from cove_dist.evaluation.declarations import families_of
from cove_dist.evaluation.protocol import Group
from cove_dist.evaluation.ranking import UserRanking
from cove_dist.evaluation.whole_groups import WholeGroups
from data_pipeline.schema import REQUEST


class CTRMetrics:
    """AUC and `SAMPLE_METRICS` over samples; GAUC, mean AUC, MRR, NDCG@k and HR@k over users, or over requests.

    Every rank receives its part of the rows, sorted by user, all rows of a user on one rank; batches may split users.

    Args:
        ndcg_at: Cutoffs k of NDCG@k.
        hit_rate_at: Cutoffs k of HR@k.
        group_by: Column of the groups whose rows are ranked: ``user_id`` or ``request_id`` (each request has one user).
        own: Builders of further metrics over samples.
        weighted: Whether AUC and the metrics over samples are weighted by the rows' weights.
    """

    def __init__(
        self,
        ndcg_at: Sequence[int] = (1, 5, 10),
        hit_rate_at: Sequence[int] = (5,),
        group_by: Group = "user_id",
        own: Sequence[Callable[[], CheckedMetric]] = (),
        weighted: bool = False,
    ) -> None:
        self._weighted = weighted
        self._by_request = group_by == REQUEST
        self._auc = BinnedAUC()
        over_samples: list[Callable[[], CheckedMetric]] = [*SAMPLE_METRICS, *own]
        self._over_samples = [metric() for metric in over_samples]
        self._ranking = UserRanking(ndcg_at, hit_rate_at)
        self._whole_users = WholeGroups()

    def to(self, device: torch.device | str) -> CTRMetrics:
        """Move the states to the device of the batches."""
        for metric in (self._auc, *self._over_samples, self._ranking):
            metric.to(device)
        return self

    def update(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        users: torch.Tensor,
        requests: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> None:
        """Add a batch, which may be empty.

        Args:
            logits: Logits, float ``[B]``.
            labels: Labels ``[B]``, 0 or 1.
            users: Users int64 ``[B]``, sorted within and across batches.
            requests: Requests int64 ``[B]``, in any order within a user; required to group by request.
            weights: Weights ``[B]`` of the rows, at least 0; required if metrics are weighted, else unused.

        Raises:
            ValueError: Shapes differ, weights are missing, a label is neither 0 nor 1, rows are not sorted by user, or
                a request has rows of several users.
            FloatingPointError: Logits are not finite.
        """
        groups = requests if self._by_request else users
        if groups is None or not users.shape == groups.shape == logits.shape:
            shapes = [None if ids is None else list(ids.shape) for ids in (users, groups)]
            raise ValueError(f"users and requests {shapes}: must be [B] like the logits, {list(logits.shape)}")
        if self._weighted and (weights is None or weights.shape != logits.shape):
            raise ValueError(f"weights: must be [B] like the logits, {list(logits.shape)}, for weighted metrics")
        over_samples = (logits, labels, weights) if self._weighted else (logits, labels)
        for metric in (self._auc, *self._over_samples):
            metric.update(*over_samples)
        whole = self._whole_users.push(users, logits, labels, groups)
        # Update even without complete groups: torchmetrics warns about metrics without updates.
        self._rank((users[:0], logits[:0], labels[:0], groups[:0]) if whole is None else whole)

    def compute(self) -> dict[str, float]:
        """Return the metrics over all ranks, the same on each, and end the stream. Collective.

        Returns:
            ``auc``; ``auc_error``, its error bound; `SAMPLE_METRICS` and own ones; the metrics of `UserRanking`;
            ``users`` or ``requests``, the number with a positive, over which MRR, NDCG and HR are averaged;
            ``samples``. If weighted, ``auc`` counts each pair by the product of its weights, and `SAMPLE_METRICS` and
            own ones are weighted means; the others are not weighted. Undefined metrics are nan: ``auc`` without
            positives or negatives (of weight above 0), ``gauc`` and ``mean_auc`` without a user who has both, MRR, NDCG
            and HR without ``users``.
        """
        if (last := self._whole_users.flush()) is not None:
            self._rank(last)
        auc, error_bound, samples = self._auc.compute()
        ranking = self._ranking.compute()
        del ranking["gauc_users"]
        users = ranking.pop("users")
        return {
            "auc": float(auc),
            "auc_error": float(error_bound),
            **{families_of(type(metric))[0].name: float(metric.compute()) for metric in self._over_samples},
            **{name: float(value) for name, value in ranking.items()},
            "requests" if self._by_request else "users": int(users),
            "samples": int(samples),
        }

    def reset(self) -> None:
        """Reset the metrics."""
        for metric in (self._auc, *self._over_samples, self._ranking):
            metric.reset()
        self._whole_users = WholeGroups()

    def _rank(self, rows: tuple[torch.Tensor, ...]) -> None:
        users, logits, labels, groups = rows
        if self._by_request and len(torch.unique(torch.stack([users, groups]), dim=1)[0]) > len(torch.unique(groups)):
            raise ValueError("a request has rows of several users: prepare the data again with one user per request")
        self._ranking.update(logits, labels, groups)
