"""Rows of new users and items from their trained neighbors: a user's items, an item's users.

Shapes: ``n`` ids, ``m`` pairs of an id and a neighbor, ``w`` width of a table row, ``d`` width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from cove_dist.distributed import world
from cove_dist.embeddings.lookup import look_up
from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.cf.config import CFRunConfig
from cove_dist.tasks.cf.fold_in import POOL, FoldInSettings, Frozen, Neighbors, Pool, fold_in, weight_decay_of
from cove_dist.tasks.cf.model import CFTaskModel
from cove_dist.tasks.cf.vectors import Vectors, vectors_of
from data_pipeline.history import History
from data_pipeline.schema import OTHER_ENTITY, Entity, Schema
from data_pipeline.streaming.negatives import RowNegatives

_USERS_AT_ONCE = 1 << 16
_PAIRS_AT_ONCE = 1 << 17
_POOL_SEED = 7  # second word of the seed of the pool

Trained = Mapping[Entity, np.ndarray]


class CFNewRows:
    """Makes rows of new users and items from their neighbors in the training split. Implements `NewRows`.

    ``mean`` is the mean of the neighbors' rows, translated where the model has a relation between them; ``code`` is
    what the entity's quantizer, if it has one, makes of that mean; ``fold_in`` starts at zero. Only neighbors that
    were trained count.

    Args:
        config, schema: Configuration and data of the run.
        model: Sharded model in which all rows but the new ones are trained.
        trained: Whether each user, and each item, was trained: bool ``[ids]``.
        device: Device of the tables.
    """

    def __init__(
        self, config: CFRunConfig, schema: Schema, model: CFTaskModel, trained: Trained, device: torch.device
    ) -> None:
        self._config, self._schema, self._model, self._trained, self._device = config, schema, model, trained, device
        self._history = History.load(config.data.path, "train")

    @torch.no_grad()
    def rows(self, entity: Entity, ids: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield ids with rows; see `NewRows.rows`."""
        other = OTHER_ENTITY[entity]
        pairs = user_pairs(self._history, ids) if entity == "user" else item_pairs(self._history, ids)
        known = self._trained[other][pairs[1]]
        places, others = pairs[0][known], pairs[1][known]
        chunks = list(_chunks(places, others))
        steps = int(world().max(torch.tensor(len(chunks), device=self._device)))
        if steps == 0:
            return
        none = np.empty(0, np.int64)
        training = self._model.training
        self._model.eval()
        make = self._folded(entity) if self._config.warm_start.new_rows == "fold_in" else self._means(entity)
        for step in range(steps):
            places, others = chunks[step] if step < len(chunks) else (none, none)
            distinct, row = np.unique(places, return_inverse=True)
            made = make(ids[distinct], row, others)
            if made is not None:
                yield ids[distinct], made
        self._model.train(training)

    def _means(self, entity: Entity) -> Callable[[np.ndarray, np.ndarray, np.ndarray], torch.Tensor | None]:
        """Return the function from ids ``[n]`` and their pairs to rows ``[n, w]``, or None without a common space."""
        column = self._model.column_of(OTHER_ENTITY[entity])
        objective = self._model.objective

        def make(ids: np.ndarray, row: np.ndarray, others: np.ndarray) -> torch.Tensor | None:
            asked = torch.from_numpy(others).to(self._device)
            rows = look_up(self._model.tables, self._model.columns, {column: asked})[column]
            mean = mean_of_pairs(rows, torch.from_numpy(row).to(self._device), len(ids))
            made = objective.head.row_from_neighbors(entity, mean)
            if made is None or self._config.warm_start.new_rows == "mean" or entity not in objective.quantizers:
                return made
            return code_vectors(objective.quantizers[entity], made)

        return make

    def _folded(self, entity: Entity) -> Callable[[np.ndarray, np.ndarray, np.ndarray], torch.Tensor]:
        """Return the function from ids ``[n]`` and their pairs to rows ``[n, w]``, by gradient steps."""
        vectors = vectors_of(self._model, self._schema, self._device)
        frozen = Frozen(
            self._model.objective,
            draw_pool(self._history, self._trained, vectors, self._config.seed, self._device),
            RowNegatives(self._history, self._schema.entity("item").num_seen).has,
        )
        width = self._model.objective.head.rows_per_id * self._config.embeddings.dim
        settings = FoldInSettings(
            self._config.warm_start.fold_in_steps,
            self._config.warm_start.fold_in_learning_rate,
            self._config.seed,
            weight_decay_of(self._config.embeddings.optimizer, self._history, entity),
            key="warm_start.fold_in_learning_rate",
        )
        look = vectors.items if entity == "user" else vectors.users

        def make(ids: np.ndarray, row: np.ndarray, others: np.ndarray) -> torch.Tensor:
            of_others = look(torch.from_numpy(others).to(self._device))
            start = torch.zeros(len(ids), width, device=self._device)
            return fold_in(frozen, entity, start, Neighbors(ids, row, others, of_others), settings)

        return make


def user_pairs(history: History, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places ``[m]`` in ``users`` and their items ``[m]``, in order of the places."""
    places, items = history.of(users)
    return places, np.asarray(items)


def item_pairs(history: History, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places ``[m]`` in the increasing ``items`` and their users ``[m]``, in order of the places.

    Reads the whole history, a part of the users at a time; memory depends on the pairs.
    """
    places, users = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(history) if len(items) else 0, _USERS_AT_ONCE):
        which, theirs = history.of(np.arange(start, min(start + _USERS_AT_ONCE, len(history))))
        found = np.minimum(np.searchsorted(items, theirs), len(items) - 1)
        mine = items[found] == theirs
        places.append(found[mine])
        users.append(which[mine] + start)
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(places)[order], np.concatenate(users)[order]


def mean_of_pairs(rows: torch.Tensor, which: torch.Tensor, count: int) -> torch.Tensor:
    """Return the means ``[count, w]`` of ``rows [m, w]`` by ``which [m]``, computed in float64."""
    total = torch.zeros(count, rows.shape[1], dtype=torch.float64, device=rows.device)
    total.index_add_(0, which, rows.double())
    return (total / torch.bincount(which, minlength=count).clamp(min=1).unsqueeze(1)).to(rows.dtype)


def code_vectors(quantizer: CascadedQuantizer, vectors: torch.Tensor) -> torch.Tensor:
    """Return the mean of the code vectors, or the sum of a residual cascade's, of ``vectors [n, w]``."""
    codes = quantizer(vectors).codes.unbind(dim=-1)
    found = torch.stack([book[code] for book, code in zip(quantizer.codebooks, codes, strict=True)]).to(vectors.dtype)
    return found.sum(dim=0) if quantizer.settings.cascade == "residual" else found.mean(dim=0)


def draw_pool(history: History, trained: Trained, vectors: Vectors, seed: int, device: torch.device) -> Pool:
    """Draw trained items and interactions, the same on every rank, with their vectors. Collective."""
    draw = np.random.default_rng([seed, _POOL_SEED])
    every = np.flatnonzero(trained["item"])
    negatives = draw.choice(every, min(POOL, len(every)), replace=False)
    places = np.sort(draw.integers(len(history.items), size=2 * POOL))
    users, items = np.searchsorted(history.offsets, places, side="right") - 1, np.asarray(history.items[places])
    kept = draw.permutation(np.flatnonzero(trained["user"][users] & trained["item"][items]))[:POOL]
    asked = [torch.from_numpy(each).to(device) for each in (negatives, users[kept], items[kept])]
    per_item = len(history.items) / max(1, len(every))
    return Pool(negatives, vectors.items(asked[0]), vectors.users(asked[1]), vectors.items(asked[2]), per_item)


def _chunks(places: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut pairs, in order of their places, into chunks that keep the pairs of a place together."""
    start = 0
    while start < len(places):
        stop = min(start + _PAIRS_AT_ONCE, len(places))
        if stop < len(places):
            first = int(np.searchsorted(places, places[stop]))
            stop = first if first > start else int(np.searchsorted(places, places[start], side="right"))
        yield places[start:stop], others[start:stop]
        start = stop
