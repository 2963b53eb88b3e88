"""Inference with a trained model on encoded ids, in one process; each task has a subclass.

Shapes: ``n`` rows, ``B`` users or sequences, ``k`` items of a list, ``d`` width of a vector, ``H`` levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.lookup import single_ids
from cove_dist.embeddings.serving import Precision
from cove_dist.errors import ConfigError
from cove_dist.quantization.quantizer import QuantizerOutput
from cove_dist.tasks.base import TaskModel
from data_pipeline.schema import Categorical, Entity, Schema
from data_pipeline.streaming.blocks import ranges

M = TypeVar("M", bound=TaskModel)

AT_ONCE = 65_536  # ids per look-up


class Lists(NamedTuple):
    """The best items of each user or sequence, best first.

    Attributes:
        scores: ``[B, k]``, -inf where fewer than k items are left.
        items: int64 ``[B, k]``, encoded; -1 where fewer are left.
    """

    scores: np.ndarray
    items: np.ndarray


class ProgramInput(NamedTuple):
    """An input of a program.

    Attributes:
        example: Valid values.
        shape: Shape; a name stands for a size that may vary, the same in every input: ``rows``.
        meaning: What the values are.
    """

    example: torch.Tensor
    shape: tuple[str | int, ...]
    meaning: str


class Program(NamedTuple):
    """A module for export, with its tables.

    Attributes:
        module: Maps the inputs to the output.
        inputs: Inputs by the names that ``forward`` gives them, in order.
        columns: The columns whose encoded ids the inputs hold.
        output: Name of the output.
        meaning: What the output is.
    """

    module: nn.Module
    inputs: dict[str, ProgramInput]
    columns: list[Categorical]
    output: str
    meaning: str


class Ragged(NamedTuple):
    """A list of ids per row.

    Attributes:
        ids: int64, list after list.
        lengths: int64 ``[n]``.
    """

    ids: np.ndarray
    lengths: np.ndarray

    def take(self, rows: np.ndarray) -> Ragged:
        """Return the lists of rows, given by their indices."""
        starts, lengths = np.cumsum(self.lengths) - self.lengths, self.lengths[rows]
        return Ragged(self.ids[ranges(starts[rows], lengths)], lengths)


@dataclass(frozen=True)
class ContextFeatures:
    """The columns of rows other than user and item.

    Attributes:
        ids: int64 ``[n]`` by categorical column: rows of its table.
        dense: float32 ``[n]`` by dense column, as in the raw data.
        lists: Lists of rows of the table by column of lists.
    """

    ids: Mapping[str, np.ndarray]
    dense: Mapping[str, np.ndarray]
    lists: Mapping[str, Ragged] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> ContextFeatures:
        """Return the columns of rows, given by their indices."""
        ids, dense = ({name: each[rows] for name, each in columns.items()} for columns in (self.ids, self.dense))
        return ContextFeatures(ids, dense, {name: each.take(rows) for name, each in self.lists.items()})


NO_CONTEXT = ContextFeatures({}, {})


class Inference(ABC, Generic[M]):
    """Scores, recommendations, embeddings and codes of one model.

    Args:
        config, schema: Configuration and data of the run.
        model: Unsharded model in eval mode.
        device: Device of the model.
    """

    def __init__(self, config: RunConfig, schema: Schema, model: M, device: torch.device) -> None:
        self.config, self.schema, self.model, self.device = config, schema, model, device

    @abstractmethod
    def score(self, users: np.ndarray, items: np.ndarray, context: ContextFeatures = NO_CONTEXT) -> np.ndarray:
        """Score pairs of table rows of users and items, int64 ``[n]`` each: float32 ``[n]``; by the first of labels."""

    def score_label(
        self, label: str, users: np.ndarray, items: np.ndarray, context: ContextFeatures = NO_CONTEXT
    ) -> np.ndarray:
        """Score pairs as `score`, by one of `labels`.

        Raises:
            ConfigError: The model did not learn this label.
        """
        raise ConfigError(f"label = {label}: {self.config.model.name} has no labels by name; leave it out")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model learned by name."""
        return ()

    @abstractmethod
    def recommend(self, users: np.ndarray, k: int, *, repeat: bool, context: ContextFeatures = NO_CONTEXT) -> Lists:
        """List the best items for users seen in training.

        Args:
            users: Encoded users, int64 ``[B]``.
            k: Number of items per user.
            repeat: Whether items of the user's interaction history may be listed.
            context: One row of further columns, the same for every pair.
        """

    def recommend_batches(
        self, batches: Sequence[np.ndarray], k: int, *, repeat: bool, context: ContextFeatures = NO_CONTEXT
    ) -> Iterator[Lists]:
        """Yield the lists of every batch of users, as `recommend` does; what all batches need is read once."""
        return (self.recommend(users, k, repeat=repeat, context=context) for users in batches)

    def recommend_after(self, sequences: Sequence[np.ndarray], k: int, *, repeat: bool) -> Lists:
        """List the best next items of sequences of table rows.

        Raises:
            ConfigError: The model does not read sequences.
        """
        raise ConfigError(f"sequences: {self.config.model.name} does not read sequences of items; give users")

    def score_after(self, sequences: Sequence[np.ndarray], items: np.ndarray) -> np.ndarray:
        """Score an item int64 ``[n]`` as the next of each sequence: float32 ``[n]``.

        Raises:
            ConfigError: The model does not read sequences.
        """
        raise ConfigError(f"sequences: {self.config.model.name} does not read sequences of items; give users")

    def fold_in(
        self, entity: Entity, rows: np.ndarray, others: np.ndarray, count: int, steps: int, learning_rate: float
    ) -> np.ndarray:
        """Compute the vectors of users or items that were not trained from their trained neighbors.

        Args:
            entity: Whether they are users or items.
            rows: Number of the new id of every interaction, int64 ``[m]``, increasing.
            others: The neighbor of every interaction, encoded, int64 ``[m]``.
            count: Number of new ids n.
            steps, learning_rate: Of the gradient steps on their rows.

        Returns:
            Vectors float32 ``[n, d]``.

        Raises:
            ConfigError: The model cannot fold in new ids; the message states why.
        """
        raise ConfigError(f"fold_in: {self.cannot_fold_in}")

    def check_fold_in(self) -> None:
        """Refuse a model that cannot fold in new ids.

        Raises:
            ConfigError: The model cannot; the message states why.
        """
        raise ConfigError(f"fold_in: {self.cannot_fold_in}")

    @property
    def cannot_fold_in(self) -> str:
        """Why the task folds in no new ids."""
        return (
            f"{self.config.model.name} does not rank by vectors of users and items; new users are served by the"
            " out-of-vocabulary row (unknown=oov_row) or the most frequent items (unknown=popular)"
        )

    def recommend_folded_in(
        self, entity: Entity, vectors: np.ndarray, k: int, excluded: tuple[np.ndarray, np.ndarray]
    ) -> Lists:
        """List the best items for the vectors ``[n, d]`` of new users, or the best users for those of new items.

        Args:
            entity: Whose vectors.
            vectors: From `fold_in`.
            k: Length of a list.
            excluded: Pairs that are not listed: index into ``vectors``, and encoded id, int64 ``[m]`` each.
        """
        raise ConfigError(f"fold_in: {self.cannot_fold_in}")

    def required_context(self) -> list[str]:
        """Return the columns that `score` needs in its context."""
        return []

    def entities(self) -> tuple[Entity, ...]:
        """Return the entities that have vectors."""
        return ("user", "item")

    def item_keys(self) -> np.ndarray:
        """Return vectors ``[num_seen, e]`` of items whose inner products with a query are the scores.

        Raises:
            ConfigError: The score of the model is not an inner product.
        """
        raise ConfigError(f"index: the score of {self.config.model.name} is no inner product; no index serves it")

    @abstractmethod
    def programs(self, precision: Precision = "float32") -> dict[str, Program]:
        """Return torch-only modules that include the tables, by name; ``model`` maps ids to scores.

        Args:
            precision: Precision of the tables; everything is computed in float32.
        """

    @abstractmethod
    def evaluate(self, split: str, context: DistributedContext, precision: Precision) -> dict[str, float]:
        """Compute the metrics of a split with the tables of `programs`. For one process.

        Args:
            split: ``validation`` or ``test``.
            context: Context of the only rank.
            precision: Precision of the tables.
        """

    @torch.no_grad()
    def vectors(self, entity: Entity) -> np.ndarray:
        """Return the vectors of all ids seen in training, fused with their codes: ``[num_seen, d]``."""
        return (
            torch.cat([quantized.fused if quantized else raw for raw, quantized in self._parts(entity)]).cpu().numpy()
        )

    @torch.no_grad()
    def codes(self, entity: Entity) -> np.ndarray:
        """Return the codes of all ids seen in training: int64 ``[num_seen, H]``, level 1, the finest, first.

        Raises:
            ConfigError: The model has no quantizer of the entity.
        """
        quantizers = self.model.objective.quantizers
        if entity not in quantizers:
            having = ", ".join(quantizers) or "none; train a run with quantizer=cove"
            raise ConfigError(f"codes of {entity}s: the run has no quantizer of {entity}s; it has: {having}")
        return (
            torch.cat([quantized.codes for _, quantized in self._parts(entity) if quantized is not None]).cpu().numpy()
        )

    def _parts(self, entity: Entity) -> Iterator[tuple[torch.Tensor, QuantizerOutput | None]]:
        """Yield the looked-up vectors of the ids in order, a part at a time, with the quantizer's output."""
        quantizer = dict(self.model.objective.quantizers.items()).get(entity)
        columns, position, vectors = self.model.entity_lookup(entity, self.schema)
        for ids in torch.arange(self.schema.entity(entity).num_seen, device=self.device).split(AT_ONCE):
            looked_up = self.model.tables(single_ids(columns, columns[position], ids, len(ids)))
            raw = vectors(looked_up, len(ids))
            yield raw, None if quantizer is None else quantizer(raw)
