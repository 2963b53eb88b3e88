"""The vectors that a trained collaborative filtering model ranks with: fused, and propagated over the graph if any.

Shapes: ``m`` ids, ``d`` width of a vector.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F

from cove_dist.distributed import world
from cove_dist.embeddings.lookup import look_up
from cove_dist.tasks.cf.graph import GraphObjective
from cove_dist.tasks.cf.model import CFTaskModel
from data_pipeline.schema import ENTITIES, Entity, Schema
from data_pipeline.streaming.transforms import ITEM_BLOCK, USER_BLOCK

_AT_ONCE = 1 << 17  # ids per look-up; a table of at most this many rows is looked up once


class Vectors(Protocol):
    """Vectors of users and items. Every call is collective; ranks may request different ids in different numbers."""

    def users(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors ``[m, d]`` of table rows int64 ``[m]``."""
        ...

    def items(self, ids: torch.Tensor) -> torch.Tensor: ...

    def all_items(self) -> torch.Tensor | None:
        """Return the vectors of all table rows of items ``[R, d]``; None where each rank holds only a part of them."""
        ...

    def item_block(self) -> tuple[int, torch.Tensor]:
        """Return the first item of this rank's share of the items seen in training, and the share's vectors."""
        ...


def vectors_of(model: CFTaskModel, schema: Schema, device: torch.device) -> Vectors:
    """Compute the vectors of a model in eval mode, on this rank's device. Collective."""
    if isinstance(model.objective, GraphObjective):
        return _Propagated(model, model.objective, schema, device)
    return _LookedUp(model, schema, device)


class _LookedUp:
    def __init__(self, model: CFTaskModel, schema: Schema, device: torch.device) -> None:
        self._model, self._num_items = model, schema.entity("item").num_seen
        self._device = device
        self._whole = {
            entity: self._fused(entity, torch.arange(rows, device=self._device))
            for entity in ENTITIES
            if (rows := schema.entity(entity).num_rows) <= _AT_ONCE
        }

    def users(self, ids: torch.Tensor) -> torch.Tensor:
        return self._rows("user", ids)

    def items(self, ids: torch.Tensor) -> torch.Tensor:
        return self._rows("item", ids)

    def all_items(self) -> torch.Tensor | None:
        return self._whole.get("item")

    def _rows(self, entity: Entity, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self._whole[entity]) if entity in self._whole else self._fused(entity, ids)

    def _fused(self, entity: Entity, ids: torch.Tensor) -> torch.Tensor:
        column = self._model.column_of(entity)
        looked_up = look_up(self._model.tables, self._model.columns, {column: ids})[column]
        return self._model.objective.fuse(entity, looked_up, [ids])[0]

    def item_block(self) -> tuple[int, torch.Tensor]:
        return self._block

    @cached_property
    def _block(self) -> tuple[int, torch.Tensor]:
        ranks = world()
        first, last = ranks.block_of(self._num_items)
        steps = math.ceil(self._num_items / ranks.size / _AT_ONCE)
        own = torch.arange(first, last, device=self._device)
        parts = (own[step * _AT_ONCE : (step + 1) * _AT_ONCE] for step in range(steps))
        return first, torch.cat([self.items(part) for part in parts])


class _Propagated:
    def __init__(self, model: CFTaskModel, objective: GraphObjective, schema: Schema, device: torch.device) -> None:
        ranks = world()
        names = {USER_BLOCK: schema.entity("user"), ITEM_BLOCK: schema.entity("item")}
        blocks = {name: torch.arange(*ranks.block_of(column.num_rows), device=device) for name, column in names.items()}
        own = look_up(model.tables, model.columns, blocks)
        self._users, self._items, _ = objective.propagated(own[USER_BLOCK], own[ITEM_BLOCK])
        self._seen = names[ITEM_BLOCK].num_seen

    def users(self, ids: torch.Tensor) -> torch.Tensor:
        return self._users.index_select(0, ids)

    def items(self, ids: torch.Tensor) -> torch.Tensor:
        return self._items.index_select(0, ids)

    def all_items(self) -> torch.Tensor:
        return self._items

    def item_block(self) -> tuple[int, torch.Tensor]:
        first, last = world().block_of(self._seen)
        return first, self._items[first:last]
