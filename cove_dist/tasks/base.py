"""Interfaces between the trainer and the models of all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from cove_dist.embeddings.fields import Tables
from cove_dist.evaluation.checks import FiniteScores
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.tasks.quantizers import EntityQuantizers
from data_pipeline.batch import Batch
from data_pipeline.history import History
from data_pipeline.schema import Entity, Schema


class StepOutput(Protocol):
    """Outputs of one training step, detached.

    Attributes:
        rows: Number of this rank's rows, over which the losses are means.
        losses: Scalars: the total, ``loss``, and its parts.
    """

    @property
    def rows(self) -> int: ...

    @property
    def losses(self) -> dict[str, torch.Tensor]: ...


class Step(NamedTuple):
    """The outputs of a step that has no others; see `StepOutput`."""

    rows: int
    losses: dict[str, torch.Tensor]


class EntityLookup(NamedTuple):
    """How to look up the embeddings of one entity.

    Attributes:
        columns: Keys of a look-up, in the order that every look-up must keep.
        position: Index into ``columns`` of the key that takes the entity's ids.
        vectors: Function of the tables' output for n ids, and n; returns the vectors to quantize, ``[n, d]``.
    """

    columns: list[str]
    position: int
    vectors: Callable[[Any, int], torch.Tensor]


class EpochHook(Protocol):
    """Work of a task at the start of every epoch, with state that checkpoints hold."""

    def start_epoch(self, epoch: int) -> None:
        """Prepare for epoch ``epoch``, from 0. Not called when training resumes within an epoch. Collective."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return tensors of constant shapes, the same on every rank."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state_dict` returned."""
        ...


@dataclass(frozen=True)
class RetrieverSettings:
    """What a retriever lists.

    Attributes:
        k: Number of items per user.
        excluded: Interaction histories whose items are not listed.
        faiss: Whether to search a FAISS index, in one process.
    """

    k: int
    excluded: tuple[History, ...] = ()
    faiss: bool = False


class Retriever(Protocol):
    """Finds the best items of users.

    Attributes:
        finite: Check for non-finite scores; call its `compute` before using the lists.
    """

    finite: FiniteScores

    def __call__(self, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and items ``[B, k]`` of this rank's ``users [B]``; -inf and -1 where fewer are left."""
        ...


class PopularityBaseline(Protocol):
    """The ranking of items by their occurrences in the training split, with the metrics of a task.

    Attributes:
        protocol: Ranking protocol of the metrics.
    """

    protocol: RankingProtocol

    def evaluate(self, split: str, batch_size: int) -> dict[str, float]:
        """Return the metrics of a split, read ``batch_size`` rows at a time."""
        ...


class Objective(nn.Module):
    """The part of a model after the look-up: data-parallel, without sharded modules.

    Its forward takes what the tables return and the batch, and returns the loss to differentiate, weighted for uneven
    ranks, and a `StepOutput`.

    Attributes:
        quantizers: Quantizers by entity.
    """

    quantizers: EntityQuantizers

    def compile_head(self) -> None:
        """Compile the head by `torch.compile` at its next call, in place: names of parameters stay as they are."""
        raise NotImplementedError(f"{type(self).__name__}: has no head to compile")

    def reset_steps(self) -> None:
        """Set what counts the steps of training to zero, at the start of a run from another one; usually nothing."""


class TaskModel(nn.Module, ABC):
    """The trained module. The train pipeline traces its forward, so it reads ids as an attribute of the batch.

    Args:
        tables: Embedding tables; sharded later.
        objective: The part after the look-up.
    """

    def __init__(self, tables: Tables, objective: Objective) -> None:
        super().__init__()
        self.tables = tables
        self.objective = objective

    def forward(self, batch: Batch) -> tuple[torch.Tensor, StepOutput]:
        """Return the loss to differentiate, weighted for uneven ranks, and the outputs of the step."""
        return self.objective(self.tables(batch.ids), batch)

    @abstractmethod
    def entity_lookup(self, entity: Entity, schema: Schema) -> EntityLookup:
        """Return how to look up the embeddings of users or items."""

    def row_parameters(self, schema: Schema) -> dict[str, str]:
        """Return the parameters outside of tables that have a number per id, and the table of these ids."""
        return {}


M = TypeVar("M", bound=TaskModel)


def inner_model(sharded: nn.Module, kind: type[M]) -> M:
    """Return the model inside the wrapper that shards it.

    Args:
        sharded: A `DistributedModelParallel`.
        kind: Class of the model.

    Raises:
        TypeError: The model is of another class.
    """
    inner = sharded.module
    if not isinstance(inner, kind):
        raise TypeError(f"expected a {kind.__name__}, not a {type(inner).__name__}")
    return inner
