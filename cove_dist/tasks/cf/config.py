"""The configuration of collaborative filtering."""

from __future__ import annotations

from typing import Literal

from cove_dist.config import EvaluationConfig, RunConfig, settings
from cove_dist.config.checks import Component
from cove_dist.config.messages import shown
from cove_dist.config.rules import Rule
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import FULL_PREFIX
from cove_dist.evaluation.own import ListMetric
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.evaluation.top_k import Coverage, TopK
from cove_dist.losses.pairs import PairLoss, SampledSoftmax
from cove_dist.models.cf.base import GraphRecommender, Recommender
from cove_dist.tasks.category_config import CATEGORY_RULES, CategoryConfig
from cove_dist.types import NonNegativeFloat, PositiveInt, UnitInterval
from data_pipeline.schema import Schema

Ranking = Literal["sampled", "full"]
RANKING_PREFIX: dict[Ranking, str] = {"sampled": "", "full": FULL_PREFIX}
_METRICS: dict[Ranking, tuple[type, ...]] = {"sampled": (TopK,), "full": (TopK, Coverage)}


@settings
class NegativesConfig(CategoryConfig):
    """Negative sampling."""

    count: PositiveInt
    source: Literal["uniform", "popularity", "in_batch"]
    power: NonNegativeFloat
    hardest_of: PositiveInt
    hardest_share: UnitInterval


@settings
class InteractionsConfig:
    """Losses of the interactions besides the model's."""

    neighbor_pull: NonNegativeFloat


@settings
class CFEvaluationConfig(EvaluationConfig):
    """Evaluation settings: whether positives are ranked among stored candidates or all items."""

    rank_validation: tuple[Ranking, ...] = ("sampled",)
    rank_test: tuple[Ranking, ...] = ("sampled", "full")

    def rankings(self, split: str) -> tuple[Ranking, ...]:
        """Return the rankings of a split."""
        return self.rank_validation if split == "validation" else self.rank_test

    def metric_names(self, split: str) -> list[str]:
        """Return the names of a split's metrics."""
        rankings = self.rankings(split)
        own = [each.kind for each in self.own(ListMetric)]
        names = {ranking: self.names_of(*_METRICS[ranking], *own) for ranking in rankings}
        return [RANKING_PREFIX[ranking] + name for ranking in rankings for name in names[ranking]]

    def protocol(self, split: str) -> RankingProtocol:
        """Return the ranking protocol of a split."""
        words = "full ranking leaves out items of earlier splits"
        return RankingProtocol(Recommender.task, words, self.ndcg_at, self.hit_rate_at, rankings=self.rankings(split))

    def check_candidates(self, schema: Schema, watched: str) -> None:
        """Check, before training, that the data have the candidates that validation and test rank.

        Args:
            schema: Schema of the data.
            watched: The metric of early stopping.

        Raises:
            ConfigError: A split has no candidates; with all settings that rank all items instead.
        """
        splits = [
            split
            for split in ("validation", "test")
            if schema.candidates is None and schema.has_split(split) and "sampled" in self.rankings(split)
        ]
        if not splits:
            return
        instead = [f"evaluation.rank_{split}=[full]" for split in splits]
        if "validation" in splits and not watched.startswith(FULL_PREFIX):
            instead.append(f"trainer.early_stopping.metric={FULL_PREFIX}{watched}")
        raise ConfigError(
            f"evaluation.rank_{splits[0]} = {shown(self.rankings(splits[0]))}: {schema.name} was prepared without"
            f" candidates; prepare it with candidates=99, or rank all items: {' '.join(instead)}"
        )


@settings
class CFRunConfig(RunConfig):
    """The settings of a run of collaborative filtering."""

    evaluation: CFEvaluationConfig
    negatives: NegativesConfig
    interactions: InteractionsConfig


def _chooses_a_loss(config: CFRunConfig) -> bool:
    """Return False for the softmax that is the model's own loss: with one negative, of temperature 1, it is BPR."""
    if config.loss is None:
        return True
    chosen = Component.resolve(PairLoss, config.loss, "loss", "loss")
    is_bpr = chosen.kind is SampledSoftmax and config.negatives.count == 1 and chosen.build().temperature == 1
    return not is_bpr or config.model.kind_of(Recommender).loss is not Recommender.loss


RULES: tuple[Rule[CFRunConfig], ...] = (
    Rule(
        ("loss._target_",),
        _chooses_a_loss,
        "with one negative and temperature 1 a softmax is BPR, the model's own loss; acts with negatives.count above 1"
        " or another loss.temperature",
    ),
    Rule(
        ("interactions.neighbor_pull",),
        lambda config: not issubclass(config.model.kind, GraphRecommender),
        "this model averages the embeddings of neighbors in its layers; acts with bprmf and cfkg",
    ),
    Rule(
        ("interactions.neighbor_pull",),
        lambda config: config.model.kind_of(Recommender).row_from_neighbors is not Recommender.row_from_neighbors,
        "the rows of this model's users and items share no space; acts with bprmf and cfkg",
    ),
    Rule(
        ("negatives.power",),
        lambda config: config.negatives.source == "popularity",
        "acts with negatives.source=popularity",
    ),
    Rule(
        ("negatives.hardest_share",),
        lambda config: config.negatives.hardest_of > 1,
        "acts with negatives.hardest_of above 1",
    ),
    Rule(
        ("negatives.hardest_of",),
        lambda config: config.negatives.hardest_share > 0,
        "with negatives.hardest_share=0 no negative is the hardest of several; acts with a share above 0",
    ),
    *CATEGORY_RULES,
)
