"""The settings of evaluation that every task has."""

from __future__ import annotations

from cove_dist.config.base import settings
from cove_dist.evaluation.declarations import names_of
from cove_dist.types import PositiveInt


@settings
class EvaluationConfig:
    """The k of ranking metrics. A task with further settings of evaluation derives its section from this one."""

    ndcg_at: tuple[PositiveInt, ...]
    hit_rate_at: tuple[PositiveInt, ...]

    def names_of(self, *metrics: type) -> list[str]:
        """Return the names that metric classes declare, for these k."""
        return [name for metric in metrics for name in names_of(metric, self.ndcg_at, self.hit_rate_at)]
