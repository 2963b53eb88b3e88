"""What the trainer asks of every task's model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import nn

from cove_dist.embeddings.tables import Tables
from cove_dist.tasks.quantizers import EntityQuantizers
from data_pipeline.batch import Batch
from data_pipeline.schema import Entity, Schema


class StepOutput(Protocol):
    """What a step leaves behind, detached.

    Attributes:
        rows: of this rank, over which the losses are means.
        losses: scalars: the total, ``loss``, and its parts.
    """

    @property
    def rows(self) -> int: ...

    @property
    def losses(self) -> dict[str, torch.Tensor]: ...


class EntityLookup(NamedTuple):
    """How the vectors of one entity's ids are had from a task's tables.

    Attributes:
        columns: the keys of a look-up, in the order that every look-up must keep.
        position: of the one that takes the entity's ids.
        vectors: of what the tables return for n ids, and n: what is quantized, ``[n, d]``.
    """

    columns: list[str]
    position: int
    vectors: Callable[[Any, int], torch.Tensor]


class EpochHook(Protocol):
    """What a task does at the start of every epoch, and the state of it that checkpoints hold."""

    def start_epoch(self, epoch: int) -> None:
        """Prepare for epoch ``epoch``, from 0. Not called when training resumes within an epoch. Collective."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return tensors of constant shapes, the same on every rank."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state_dict` returned."""
        ...


class Objective(nn.Module):
    """Everything of a model after the look-up: replicated, and without a sharded module inside.

    Its forward takes what the tables return and the batch, and returns the loss to differentiate, weighted for uneven
    ranks, and a `StepOutput`.

    Attributes:
        quantizers: by entity.
    """

    quantizers: EntityQuantizers


class TaskModel(nn.Module, ABC):
    """The trained module. Its forward reads the tables by an attribute of the batch: the train pipeline traces it.

    Args:
        tables: of ids; sharded later.
        objective: what follows.
    """

    def __init__(self, tables: Tables, objective: Objective) -> None:
        super().__init__()
        self.tables = tables
        self.objective = objective

    def forward(self, batch: Batch) -> tuple[torch.Tensor, StepOutput]:
        """Return the loss to differentiate, weighted for uneven ranks, and what the step leaves behind."""
        return self.objective(self.tables(batch.ids), batch)

    @abstractmethod
    def entity_lookup(self, entity: Entity, schema: Schema) -> EntityLookup:
        """Return how to look up the vectors of users or items."""


M = TypeVar("M", bound=TaskModel)


def inner_model(sharded: nn.Module, kind: type[M]) -> M:
    """Return the model inside the wrapper that shards it.

    Args:
        sharded: a `DistributedModelParallel`.
        kind: the class of the model.

    Raises:
        TypeError: the model is of another class.
    """
    inner = sharded.module
    if not isinstance(inner, kind):
        raise TypeError(f"expected a {kind.__name__}, not a {type(inner).__name__}")
    return inner
