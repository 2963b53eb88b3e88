"""What the trainer asks of every task's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from cove_dist.embeddings.tables import Tables
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema


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


class TaskModel(Protocol):
    """A module whose forward reads its tables by an attribute of the batch, as the train pipeline's tracer needs.

    Attributes:
        tables: sharded.
        objective: everything else, replicated; its ``quantizers`` is an `nn.ModuleDict` by entity.
    """

    tables: Tables
    objective: nn.Module

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, StepOutput]:
        """The loss to differentiate, weighted for uneven ranks, and what the step leaves behind."""
        ...

    def entity_lookup(self, entity: str, schema: Schema) -> EntityLookup:
        """Of user or item."""
        ...
