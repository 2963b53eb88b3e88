"""The configuration of sequential recommendation."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Le

from cove_dist.config import EvaluationConfig, RunConfig, settings
from cove_dist.config.rules import Rule, is_quantized
from cove_dist.evaluation.own import ListMetric
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.evaluation.sequential import ListCompletion
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.category_config import CATEGORY_RULES, CategoryConfig
from cove_dist.types import NonNegativeInt, PositiveInt, UnitInterval
from data_pipeline.schema import Schema


@settings
class SequentialConfig:
    """Sequential-model settings: the softmax over items, masking, categories of items."""

    softmax: Literal["vocabulary_parallel", "full", "sampled"]
    sampled: PositiveInt
    sampled_power: UnitInterval
    fuse_output: bool
    mask_share: Annotated[float, Gt(0), Le(1)]
    mask_last: UnitInterval
    curriculum_steps: NonNegativeInt
    categories: str | None
    two_stage: bool
    item_bias: bool | None

    def __post_init__(self) -> None:
        if self.two_stage and self.softmax == "sampled":
            raise ValueError("two_stage = true: not with softmax = sampled; allowed: vocabulary_parallel, full")


@settings
class SequentialEvaluationConfig(EvaluationConfig):
    """Evaluation settings: whether items of a row's input are excluded from its ranking; None: depends on the data."""

    exclude_seen: bool | None = None

    def metric_names(self, schema: Schema | None = None) -> list[str]:
        """Return the names of the metrics of every split, except those undefined for the data's sequence lengths."""
        own = [each.kind for each in self.own(ListMetric)]
        if schema is None:
            return self.names_of(ListCompletion, *own)
        return ListCompletion.defined(self.ndcg_at, self.hit_rate_at, schema.longest_target) + self.names_of(*own)

    def protocol(self, schema: Schema) -> RankingProtocol:
        """Return the ranking protocol of the data.

        By default, items of the input are excluded for next-item targets, as in S3-Rec's evaluation, and ranked for
        targets of several items, which may repeat items of the input.
        """
        excluded = schema.longest_target == 1 if self.exclude_seen is None else self.exclude_seen
        words = "items of the input are left out" if excluded else "items of the input may be ranked again"
        return RankingProtocol(SequentialModel.task, words, self.ndcg_at, self.hit_rate_at, exclude_seen=excluded)


@settings
class SequentialRunConfig(RunConfig):
    """The settings of a run of sequential recommendation."""

    evaluation: SequentialEvaluationConfig
    sequential: SequentialConfig
    negatives: CategoryConfig

    @property
    def model_class(self) -> type[SequentialModel]:
        """The class of the model."""
        return self.model.kind_of(SequentialModel)

    @property
    def has_item_bias(self) -> bool:
        """Whether item scores have a trained bias: as configured, or by default as in the model's paper."""
        configured = self.sequential.item_bias
        return self.model_class.item_bias if configured is None else configured


RULES: tuple[Rule[SequentialRunConfig], ...] = (
    Rule(
        ("negatives.*",),
        lambda config: config.sequential.softmax == "sampled",
        "there are no negatives to draw; acts with sequential.softmax=sampled",
    ),
    *CATEGORY_RULES,
    Rule(
        ("embeddings.id_dropout", "embeddings.unseen"),
        lambda config: False,
        "sequential models know users by their sequences or, as owners, only those of training, and items are targets",
    ),
    Rule(
        ("sequential.sampled", "sequential.sampled_power"),
        lambda config: config.sequential.softmax == "sampled",
        "acts with sequential.softmax=sampled",
    ),
    Rule(("sequential.fuse_output",), is_quantized, "there are no fused embeddings without a quantizer"),
    Rule(
        ("sequential.mask_share", "sequential.mask_last"),
        lambda config: config.model_class.reads_masked_items,
        "this model is not trained on masked items; acts with model=bert4rec",
    ),
    Rule(
        ("sequential.mask_share",),
        lambda config: config.sequential.mask_last < 1,
        "only the last item of every sequence is masked; acts with sequential.mask_last below 1",
    ),
    Rule(
        ("sequential.curriculum_steps",),
        lambda config: config.model_class.decoding == "parallel",
        "this model does not predict all targets at once; acts with model=fans",
    ),
)
