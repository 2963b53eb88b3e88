"""Folding in: table rows of users or items that were not trained, by gradient steps on these rows, all else frozen.

A row minimizes the ranking loss of training, of which only the terms with this row are left. For a user u with items i
and drawn items j that u does not have, ``loss(s(u, i), s(u, j))``. For an item i with users u,
``loss(s(u, i), s(u, j))``; and as the item is also drawn as a negative of others in training,
``loss(s(v, k), s(v, i))`` of drawn interactions (v, k), as often as in an epoch with one negative per interaction.
`Recommender.regularization` acts as in training, and ``embeddings.optimizer.weight_decay`` too (`weight_decay_of`). The
further losses of training are left out: those of quantizers, the pull of neighbors, and the edges of CFKG. The online
update of Rendle and Schmidt-Thieme (RecSys 2008) takes such steps.

Steps are Adam's on all rows together, whose gradients are independent of each other. Drawn items are a hash of
(seed, step, id, number of the neighbor), so a row does not depend on the rows it is folded in with.

Shapes: ``n`` rows of width ``w``, ``m`` pairs of a row and a neighbor, ``P`` drawn items or interactions, ``d`` width
of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from cove_dist.config.embeddings import TableOptimizerConfig
from cove_dist.errors import ConfigError
from cove_dist.models.cf.base import GraphRecommender
from cove_dist.tasks.cf.model import CFObjective
from data_pipeline.history import History
from data_pipeline.schema import Entity
from data_pipeline.streaming.draws import Draws, epoch_key

POOL = 4096  # drawn items or interactions, shared by all rows
_TRIES = 8  # of finding a drawn item that a user does not have
_PER_ID = 1 << 20  # random numbers of an id and a step


@dataclass(frozen=True)
class FoldInSettings:
    """Settings of the gradient steps.

    Attributes:
        steps: Number of steps; 0 leaves rows at their start.
        learning_rate: Of Adam.
        seed: Seed of the drawn items.
        weight_decay: Function from the numbers of pairs of rows, int64 ``[n]``, to the weights of half their squared
            norms against the sums over their pairs, ``[n]``; None: no decay.
        key: Setting of the learning rate, for messages.
    """

    steps: int
    learning_rate: float
    seed: int = 0
    weight_decay: Callable[[torch.Tensor], torch.Tensor] | None = None
    key: str = "learning_rate"


class Neighbors(NamedTuple):
    """The trained neighbors of new ids.

    Attributes:
        ids: The new ids, int64 ``[n]``, which seed their draws.
        rows: Row of every pair, int64 ``[m]``, increasing.
        others: Neighbor of every pair, an id of the other entity, int64 ``[m]``.
        vectors: Vectors of the neighbors, ``[m, d]``.
    """

    ids: np.ndarray
    rows: np.ndarray
    others: np.ndarray
    vectors: torch.Tensor


class Pool(NamedTuple):
    """What negatives are drawn from: trained items, and trained interactions for rows that are negatives themselves.

    Attributes:
        items: Items, all equally likely, int64 ``[P]``.
        item_vectors: Their vectors, ``[P, d]``.
        users: Vectors of the users of the interactions, ``[P', d]``.
        positives: Vectors of the items of the interactions, ``[P', d]``.
        per_item: Interactions for each item of the data, on average.
    """

    items: np.ndarray
    item_vectors: torch.Tensor
    users: torch.Tensor
    positives: torch.Tensor
    per_item: float

    @property
    def draws_per_item(self) -> int:
        """How often an item is a negative in an epoch, at least once."""
        return max(1, round(self.per_item))


class Frozen(NamedTuple):
    """A trained model, of which folding in changes nothing.

    Attributes:
        objective: Model and quantizers, in eval mode.
        pool: Drawn interactions.
        has: Function that tells whether users ``[k]`` have items ``[k]`` in training: bool ``[k]``.
    """

    objective: CFObjective
    pool: Pool
    has: Callable[[np.ndarray, np.ndarray], np.ndarray]


def weight_decay_of(
    optimizer: TableOptimizerConfig, history: History, entity: Entity
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return the weight decay of rows as training applies it, for `FoldInSettings`.

    Training adds the decay of a row to the mean gradient of a batch, so over an epoch of N interactions it weighs N
    times as much as a pair. With ``weight_decay_frequency_power`` a row with n pairs gets the decay of an id with n
    interactions.

    Args:
        optimizer: Settings of the tables' optimizer.
        history: Interactions of training.
        entity: Whether the rows are of users or items.
    """
    if optimizer.weight_decay == 0:
        return None
    of_epoch, power = optimizer.weight_decay * len(history.items), optimizer.weight_decay_frequency_power
    if power == 0:
        return lambda pairs: torch.full(pairs.shape, of_epoch, device=pairs.device)
    counts = np.diff(history.offsets) if entity == "user" else np.bincount(history.items)
    mean = float(np.mean(counts[counts > 0].astype(np.float64) ** power))
    return lambda pairs: (of_epoch / mean * pairs.double() ** power).float()


def fold_in_obstacle(objective: CFObjective) -> str | None:
    """Return why no row can be folded into a model; None where one can."""
    if isinstance(objective.head, GraphRecommender):
        return "its vectors are propagated over the graph of the training data, in which new ids have no place"
    return None


def fold_in(
    frozen: Frozen, entity: Entity, start: torch.Tensor, neighbors: Neighbors, settings: FoldInSettings
) -> torch.Tensor:
    """Return the rows ``[n, w]`` after gradient steps from ``start [n, w]``.

    Raises:
        ConfigError: The steps diverged.
    """
    rows = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([rows], lr=settings.learning_rate)
    of_pair = torch.from_numpy(neighbors.rows).to(rows.device)
    pairs, decay = torch.bincount(of_pair, minlength=len(rows)), None
    looked_up = pairs if entity == "user" else pairs + frozen.pool.draws_per_item  # in an epoch
    if settings.weight_decay is not None:
        decay = settings.weight_decay(pairs).unsqueeze(1)
    loss_of = _user_loss if entity == "user" else _item_loss
    for step in range(settings.steps):
        draws = Draws(epoch_key(settings.seed, step), 0, 0)
        with torch.enable_grad():
            fused, _ = frozen.objective.fuse(entity, rows)
            loss = loss_of(frozen, fused, of_pair, neighbors, draws)
            penalty = (rows.square().sum(dim=1) * looked_up).sum() * (frozen.objective.head.regularization / 2)
            (gradient,) = torch.autograd.grad(loss + penalty, [rows])
        rows.grad = gradient if decay is None else gradient.addcmul(rows.detach(), decay)
        optimizer.step()
    if not rows.isfinite().all():
        raise ConfigError(
            f"{settings.key} = {settings.learning_rate}: folding in {len(rows)} rows diverged within"
            f" {settings.steps} steps; take a lower one, such as 0.02"
        )
    return rows.detach()


def _user_loss(
    frozen: Frozen, fused: torch.Tensor, of_pair: torch.Tensor, neighbors: Neighbors, draws: Draws
) -> torch.Tensor:
    pool = frozen.pool
    drawn = _others(neighbors, pool.items, draws)
    items = torch.stack([neighbors.vectors, pool.item_vectors[torch.from_numpy(drawn).to(fused.device)]], dim=1)
    return _summed_loss(frozen, fused.index_select(0, of_pair), items)


def _item_loss(
    frozen: Frozen, fused: torch.Tensor, of_pair: torch.Tensor, neighbors: Neighbors, draws: Draws
) -> torch.Tensor:
    pool = frozen.pool
    drawn = _uniform(neighbors, draws, len(pool.items))
    for _ in range(_TRIES):
        again = frozen.has(neighbors.others, pool.items[drawn])
        drawn = np.where(again, (drawn + 1) % len(pool.items), drawn)
    negatives = pool.item_vectors[torch.from_numpy(drawn).to(fused.device)]
    as_positive = torch.stack([fused.index_select(0, of_pair), negatives], dim=1)
    loss = _summed_loss(frozen, neighbors.vectors, as_positive)
    count = pool.draws_per_item
    which = np.repeat(np.arange(len(neighbors.ids)), count)
    cells = neighbors.ids[which] * _PER_ID + np.tile(np.arange(count), len(neighbors.ids))
    drawn = (draws.stream(1).of_cells(cells, 1) * len(pool.users)).astype(np.int64)
    users, positives = (each[torch.from_numpy(drawn).to(fused.device)] for each in (pool.users, pool.positives))
    own = fused.index_select(0, torch.from_numpy(which).to(fused.device))
    return loss + _summed_loss(frozen, users, torch.stack([positives, own], dim=1))


def _summed_loss(frozen: Frozen, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Return the summed losses of ``users [k, d]``, each with its positive and its negative ``[k, 2, d]``."""
    objective = frozen.objective
    scores = objective.head(users, items)
    loss = objective.head.loss if objective.loss is None else objective.loss
    return loss(scores[:, 0], scores[:, 1:]).sum()


def _others(neighbors: Neighbors, pool: np.ndarray, draws: Draws) -> np.ndarray:
    """Draw for every pair an index of ``pool`` whose item the row does not have, int64 ``[m]``.

    Of a row that has nearly all items, one that it has may remain.
    """
    width = max(int(pool.max()), int(neighbors.others.max(initial=0))) + 1
    owned = np.unique(neighbors.rows * width + neighbors.others)
    drawn = _uniform(neighbors, draws, len(pool))
    for _ in range(_TRIES):
        keys = neighbors.rows * width + pool[drawn]
        again = owned[np.minimum(np.searchsorted(owned, keys), len(owned) - 1)] == keys
        drawn = np.where(again, (drawn + 1) % len(pool), drawn)
    return drawn


def _uniform(neighbors: Neighbors, draws: Draws, count: int) -> np.ndarray:
    """Draw for every pair a number below ``count``, int64 ``[m]``."""
    first = np.searchsorted(neighbors.rows, neighbors.rows)
    cells = neighbors.ids[neighbors.rows] * _PER_ID + np.arange(len(neighbors.rows)) - first
    return (draws.of_cells(cells, 1) * count).astype(np.int64)
