"""The configuration of click-through rate prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from cove_dist.config import EmbeddingsConfig, EvaluationConfig, RunConfig, settings
from cove_dist.errors import ConfigError
from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.classification import SAMPLE_METRICS, BinnedAUC
from cove_dist.evaluation.protocol import Group, Protocol
from cove_dist.evaluation.ranking import UserRanking
from cove_dist.models.ctr.base import CTRHead
from cove_dist.types import Pooling
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
class CTREmbeddingsConfig(EmbeddingsConfig):
    """Tables, and the pooling of columns of lists: that of ``default``, or of the column."""

    pooling: dict[str, Pooling] = field(default_factory=lambda: {"default": "mean"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if "default" not in self.pooling:
            raise ValueError("pooling: needs the key 'default'; further keys are columns of lists")


@settings
class CTRRunConfig(RunConfig):
    """The settings of a run of click-through rate prediction."""

    embeddings: CTREmbeddingsConfig
    evaluation: CTREvaluationConfig

    def attended(self, schema: Schema) -> list[str]:
        """Return the columns of lists that the head attends to: those with the ids of items.

        Raises:
            ConfigError: The head attends to lists, and there are none.
        """
        if not self.model.kind_of(CTRHead).attends_to_histories:
            return []
        item = schema.entity("item")
        found = [each.name for each in schema.categorical if each.sequence and each.table_name == item.table_name]
        if not found:
            raise ConfigError(
                f"model = {self.model.name}: attends to lists of items, and {schema.name} has none; prepare it with"
                " lists=[COLUMN] list_vocabularies={COLUMN: the column of items}, MIND with history=50"
            )
        return found

    def pooled(self, schema: Schema) -> Mapping[str, Pooling]:
        """Return the pooling of every column of lists that the head does not attend to.

        Raises:
            ConfigError: A pooling would do nothing.
        """
        attended, settings = self.attended(schema), self.embeddings.pooling
        lists = [each.name for each in schema.categorical if each.sequence and each.name not in attended]
        for name, pooling in settings.items():
            acts = name in lists or (name == "default" and (pooling == "mean" or set(lists) - set(settings)))
            if not acts:
                why = (
                    "its head attends to the entries" if name in attended else f"lists of {schema.name} that are pooled"
                )
                shown = "" if name in attended else f": {', '.join(lists) or 'none'}"
                raise ConfigError(f"embeddings.pooling.{name} = {pooling}: would do nothing: {why}{shown}")
        return {name: settings.get(name, settings["default"]) for name in lists}
