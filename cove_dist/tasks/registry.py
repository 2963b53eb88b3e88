"""The tasks that can be trained: how each builds its model, loads its batches and is evaluated.

A model's class names its task (``task = "ctr"``), so that choosing a model is choosing a task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.evaluation import Groups
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.cf.build import build_cf_model
from cove_dist.tasks.cf.evaluator import build_cf_evaluator
from cove_dist.tasks.cf.loaders import cf_training_loader
from cove_dist.tasks.ctr.evaluator import build_ctr_evaluator
from cove_dist.tasks.ctr.model import build_ctr_model
from cove_dist.tasks.loaders import training_loader
from cove_dist.tasks.sequential.build import build_list_model
from cove_dist.tasks.sequential.evaluator import build_list_evaluator
from cove_dist.tasks.sequential.loaders import list_training_loader
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import StreamLoader

Evaluator = Callable[[nn.Module], dict[str, float]]  # of one split; a collective call


@dataclass(frozen=True)
class Task:
    """Functions of the run's configuration, the data's schema and this rank."""

    build_model: Callable[[RunConfig, Schema], TaskModel]
    build_training_loader: Callable[[RunConfig, Schema, DistributedContext], StreamLoader]
    evaluator: Callable[..., Evaluator]  # of a split as well and, where by_frequency, of groups of ids
    by_frequency: bool = True  # whether its metrics can be computed apart for groups of ids

    def build_evaluator(
        self, config: RunConfig, schema: Schema, split: str, runtime: DistributedContext, groups: Groups
    ) -> Evaluator:
        """A pass over a split; where metrics can be computed apart for ``groups`` of ids, they are."""
        if self.by_frequency:
            return self.evaluator(config, schema, split, runtime, groups)
        return self.evaluator(config, schema, split, runtime)


TASKS = {
    "ctr": Task(build_ctr_model, training_loader, build_ctr_evaluator),
    "cf": Task(build_cf_model, cf_training_loader, build_cf_evaluator),
    "sequential": Task(build_list_model, list_training_loader, build_list_evaluator, by_frequency=False),
}


def task_name(config: RunConfig) -> str:
    """Return the name of the task that a configuration's model is for."""
    return config.model.kind.task


def task_of(config: RunConfig) -> Task:
    return TASKS[task_name(config)]
