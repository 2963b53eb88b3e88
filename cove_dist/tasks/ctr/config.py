"""The configuration of click-through rate prediction."""

from __future__ import annotations

from cove_dist.config import EvaluationConfig, RunConfig, settings
from cove_dist.errors import ConfigError
from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.classification import SAMPLE_METRICS, BinnedAUC
from cove_dist.evaluation.protocol import Group, Protocol
from cove_dist.evaluation.ranking import UserRanking
from cove_dist.models.ctr.base import CTRHead
from data_pipeline.schema import REQUEST, Schema


@settings
class CTREvaluationConfig(EvaluationConfig):
    """Evaluation settings: whether rows are ranked within their user (also if None) or within their request."""

    group_by: Group | None = None

    def metric_names(self) -> list[str]:
        """Return the names of the metrics of every split."""
        own = [each.kind for each in self.own(CheckedMetric)]
        return self.names_of(BinnedAUC, *SAMPLE_METRICS, *own, UserRanking)

    def protocol(self, schema: Schema) -> Protocol:
        """Return the ranking protocol.

        Raises:
            ConfigError: The data have no requests to group rows by.
        """
        if self.group_by == REQUEST and not schema.requests:
            raise ConfigError(
                f"evaluation.group_by = {REQUEST}: {schema.name} was prepared without requests; prepare it with"
                " request=COLUMN, which names the request (impression, session) of every row, or leave group_by=null"
            )
        words = f"ranking per {'request' if self.group_by == REQUEST else 'user'}"
        return Protocol(CTRHead.task, words, self.ndcg_at, self.hit_rate_at, group_by=self.group_by or "user_id")


@settings
class CTRRunConfig(RunConfig):
    """The settings of a run of click-through rate prediction."""

    evaluation: CTREvaluationConfig
