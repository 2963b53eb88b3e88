"""The configuration of click-through rate prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from cove_dist.config import EmbeddingsConfig, EvaluationConfig, RunConfig, settings
from cove_dist.config.rules import Rule
from cove_dist.errors import ConfigError
from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.classification import SAMPLE_METRICS, BinnedAUC
from cove_dist.evaluation.frequency import is_grouped
from cove_dist.evaluation.own import SampleMetric
from cove_dist.evaluation.protocol import Group, RankingProtocol
from cove_dist.evaluation.ranking import UserRanking
from cove_dist.models.ctr.base import CTRHead
from cove_dist.types import Pooling, PositiveFloat, Text
from data_pipeline.schema import REQUEST, Schema


@settings
class CTREvaluationConfig(EvaluationConfig):
    """Evaluation settings.

    Attributes:
        group_by: Whether rows are ranked within their user (also if None) or within their request.
        weighted: Whether AUC and the metrics over samples are weighted by the rows' sample weights.
    """

    group_by: Group | None = None
    weighted: bool = False

    def metric_names(self) -> list[str]:
        """Return the names of the metrics of every split."""
        own = [each.kind for each in self.own(CheckedMetric)]
        return self.names_of(BinnedAUC, *SAMPLE_METRICS, *own, UserRanking)

    def protocol(self, schema: Schema) -> RankingProtocol:
        """Return the ranking protocol.

        Raises:
            ConfigError: The data have no requests to group rows by, or no weights.
        """
        if self.group_by == REQUEST and not schema.requests:
            raise ConfigError(
                f"evaluation.group_by = {REQUEST}: {schema.name} was prepared without requests; prepare it with"
                " request=COLUMN, which names the request (impression, session) of every row, or leave group_by=null"
            )
        self._check_weighted(schema)
        words = f"ranking per {'request' if self.group_by == REQUEST else 'user'}"
        words += ", AUC and means over rows weighted" if self.weighted else ""
        return RankingProtocol(
            CTRHead.task,
            words,
            self.ndcg_at,
            self.hit_rate_at,
            group_by=self.group_by or "user_id",
            weighted=True if self.weighted else None,
        )

    def _check_weighted(self, schema: Schema) -> None:
        if self.weighted and schema.weight is None:
            raise ConfigError(
                f"evaluation.weighted = true: {schema.name} was prepared without weights; prepare it with"
                " weight=COLUMN, or leave weighted=false"
            )
        for each in self.own(CheckedMetric) if self.weighted else ():
            if not issubclass(each.kind, SampleMetric):
                raise ConfigError(
                    f"evaluation.weighted = true: {each.key} is no mean over rows, which has weights; derive it from"
                    f" {SampleMetric.__module__}.SampleMetric, or leave it out"
                )


@settings
class LabelsConfig:
    """Which labels are learned, of data with several.

    Attributes:
        label: A label, or several with a head each; None: the first one of the data.
        label_weights: Weights of their losses; None: 1 each.
    """

    label: Text | tuple[Text, ...] | None = None
    label_weights: tuple[PositiveFloat, ...] | None = None

    def __post_init__(self) -> None:
        if self.label is not None and len(set(self.names)) != max(1, len(self.names)):
            raise ValueError(f"label = {list(self.names)}: must name one label, or several different ones")
        if self.label_weights is not None and len(self.label_weights) != len(self.names):
            raise ValueError(
                f"label_weights = {list(self.label_weights)}: must be as many as the labels of ctr.label,"
                f" {list(self.names)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The learned labels by name; empty: the first one of the data. The first is the main one."""
        return (self.label,) if isinstance(self.label, str) else self.label or ()

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each label's loss, if several are learned; else empty."""
        if len(self.names) < 2:
            return {}
        return dict(zip(self.names, self.label_weights or [1.0] * len(self.names), strict=True))

    def of(self, schema: Schema) -> Schema:
        """Return the schema whose batches have the learned labels.

        Raises:
            ConfigError: The data do not have a label.
        """
        for name in self.names:
            if name not in schema.labels:
                has = (
                    f"allowed: {', '.join(schema.labels)}"
                    if schema.labels
                    else ("it was prepared with one label; allowed: null, or prepare it with label=[click,like]")
                )
                raise ConfigError(f"ctr.label = {name}: {schema.name} has no such label; {has}")
            if is_grouped(f"auc/{name}"):
                raise ConfigError(f"ctr.label = {name}: metrics of rare ids have such names; rename the column")
        return schema.learning(self.names) if self.names else schema


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
    ctr: LabelsConfig = field(default_factory=LabelsConfig)

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


RULES: tuple[Rule[CTRRunConfig], ...] = (
    Rule(
        ("ctr.label_weights",),
        lambda config: len(config.ctr.names) > 1,
        "acts with several labels, ctr.label=[click,like]",
    ),
)
