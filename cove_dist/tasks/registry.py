"""The tasks that can be trained. The base class of a model names its task."""

from __future__ import annotations

from typing import Any

from cove_dist.config import RunConfig
from cove_dist.tasks.cf.task import CFTask
from cove_dist.tasks.ctr.task import CTRTask
from cove_dist.tasks.sequential.task import SequentialTask
from cove_dist.tasks.task import Task

TASKS: dict[str, Task[Any]] = {task.name: task for task in (CTRTask(), CFTask(), SequentialTask())}


def task_of(config: RunConfig) -> Task[Any]:
    """Return the task that trains the model of a configuration."""
    return TASKS[config.model.kind.task]
