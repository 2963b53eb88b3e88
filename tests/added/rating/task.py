"""Rating prediction, as an example of a task: its models, configuration, metrics and protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torchmetrics import MeanSquaredError

from cove_dist.config import RunConfig, settings
from cove_dist.distributed import DistributedContext
from cove_dist.evaluation import Groups
from cove_dist.evaluation.declarations import Family, declares
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.models.base import Model
from cove_dist.tasks.task import Evaluator, Task
from cove_dist.types import NonNegativeFloat, PositiveFloat
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.tasks.base import TaskModel
    from data_pipeline.streaming.loader import StreamLoader


@declares(Family("mse", "mean squared error", higher_is_better=False))
class SquaredError(MeanSquaredError):
    """Mean squared error over rows."""


class RatingModel(Model):
    """Predict ``mean + user · item``."""

    task = "rating"
    has_parameters = False
    uses_precision = False

    def __init__(self, *, mean: NonNegativeFloat = 0.0) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Map users and items ``[B, d]`` to ratings ``[B]``."""
        return self.mean + (users * items).sum(dim=1)


@settings
class RatingConfig:
    """The section ``rating``."""

    scale: PositiveFloat


@settings
class RatingRunConfig(RunConfig):
    """The settings of a run of rating prediction."""

    rating: RatingConfig


class RatingTask(Task[RatingRunConfig]):
    """Labels, predicted row by row."""

    name: ClassVar[str] = RatingModel.task
    title = "rating prediction"
    config = RatingRunConfig
    by_frequency = False

    def build_model(self, config: RatingRunConfig, schema: Schema) -> TaskModel:
        from tests.added.rating.model import build_rating_trainee

        return build_rating_trainee(config, schema)

    def build_training_loader(
        self, config: RatingRunConfig, schema: Schema, context: DistributedContext
    ) -> StreamLoader:
        from cove_dist.tasks.loaders import training_loader

        return training_loader(config, schema, context)

    def build_evaluator(
        self, config: RatingRunConfig, schema: Schema, split: str, context: DistributedContext, groups: Groups
    ) -> Evaluator:
        from tests.added.rating.model import build_rating_evaluator

        return build_rating_evaluator(config, schema, split, context)

    def metric_names(self, config: RatingRunConfig, split: str, schema: Schema | None = None) -> list[str]:
        return config.evaluation.names_of(SquaredError)

    def protocol(self, config: RatingRunConfig, schema: Schema, split: str) -> RankingProtocol:
        return RankingProtocol(self.name, "mean over rows", config.evaluation.ndcg_at, config.evaluation.hit_rate_at)
