"""What is measured, and how it is ranked."""

from __future__ import annotations

from typing import Literal

from cove_dist.config.base import settings
from cove_dist.evaluation import metric_names
from cove_dist.evaluation.declarations import FULL_PREFIX
from cove_dist.evaluation.protocol import Group, Protocol, protocol_of
from cove_dist.types import PositiveInt
from data_pipeline.schema import Schema

Ranking = Literal["sampled", "full"]
RANKING_PREFIX: dict[Ranking, str] = {"sampled": "", "full": FULL_PREFIX}


@settings
class EvaluationConfig:
    ndcg_at: tuple[PositiveInt, ...]
    hit_rate_at: tuple[PositiveInt, ...]
    rank_validation: tuple[Ranking, ...] = ("sampled",)
    rank_test: tuple[Ranking, ...] = ("sampled", "full")
    group_by: Group | None = None
    exclude_seen: bool | None = None

    def protocol(self, task: str, schema: Schema) -> Protocol:
        """Resolve how data are ranked; see `cove_dist.evaluation.protocol.protocol_of`."""
        return protocol_of(task, schema, self.group_by, self.exclude_seen)

    def rankings(self, split: str) -> tuple[Ranking, ...]:
        return self.rank_validation if split == "validation" else self.rank_test

    def metrics(self, task: str, split: str = "validation", schema: Schema | None = None) -> list[str]:
        """Return the names of a split's metrics, as metrics files have them.

        Args:
            task: ``ctr``, ``cf`` or ``sequential``.
            split: of which.
            schema: of the data; None: the metrics that the task has with any data.
        """
        longest = None if schema is None else schema.longest_target
        return metric_names(task, self.ndcg_at, self.hit_rate_at, self.rankings(split), longest)
