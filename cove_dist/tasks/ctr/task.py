"""Click-through rate prediction as a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.evaluation import Groups
from cove_dist.tasks.task import Evaluator, Task
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.tasks.ctr.model import CTRModel
    from data_pipeline.streaming.loader import StreamLoader


class CTRTask(Task):
    """Labelled examples, scored one by one."""

    name = "ctr"
    title = "click-through rate models"
    saves_predictions = True

    def build_model(self, config: RunConfig, schema: Schema) -> CTRModel:
        from cove_dist.tasks.ctr.model import build_ctr_model

        return build_ctr_model(config, schema)

    def build_training_loader(self, config: RunConfig, schema: Schema, runtime: DistributedContext) -> StreamLoader:
        from cove_dist.tasks.loaders import training_loader

        return training_loader(config, schema, runtime)

    def build_evaluator(
        self, config: RunConfig, schema: Schema, split: str, runtime: DistributedContext, groups: Groups
    ) -> Evaluator:
        from cove_dist.tasks.ctr.evaluator import build_ctr_evaluator

        return build_ctr_evaluator(config, schema, split, runtime, groups)
