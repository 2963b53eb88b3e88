"""Collaborative filtering as a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.evaluation import Groups
from cove_dist.tasks.task import Evaluator, Task
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.tasks.cf.model import CFModel
    from data_pipeline.streaming.loader import StreamLoader


class CFTask(Task):
    """Positives of implicit feedback, ranked among candidates or all items."""

    name = "cf"
    title = "collaborative filtering"
    section = "negatives"
    recommends = True

    def build_model(self, config: RunConfig, schema: Schema) -> CFModel:
        from cove_dist.tasks.cf.build import build_cf_model

        return build_cf_model(config, schema)

    def build_training_loader(self, config: RunConfig, schema: Schema, runtime: DistributedContext) -> StreamLoader:
        from cove_dist.tasks.cf.loaders import cf_training_loader

        return cf_training_loader(config, schema, runtime)

    def build_evaluator(
        self, config: RunConfig, schema: Schema, split: str, runtime: DistributedContext, groups: Groups
    ) -> Evaluator:
        from cove_dist.tasks.cf.evaluator import build_cf_evaluator

        return build_cf_evaluator(config, schema, split, runtime, groups)
