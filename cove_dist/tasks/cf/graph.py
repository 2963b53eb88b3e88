"""Collaborative filtering over the interaction graph, partitioned by rows among ranks.

Each rank looks up its own block of users and of items, quantizes and propagates them; before every layer the ranks
exchange what they hold. With ``N`` users and items, ``E`` interactions, ``W`` ranks and ``K`` layers, a rank per step

- multiplies and adds ``2 K E d / W`` numbers forward, and as many backward;
- receives ``(K + 1) N d`` numbers forward; backward it receives ``K N d`` and sends ``N d``; with regularization it
  moves ``N d`` more each way;
- holds ``O(N d)`` numbers, whatever K, and 24 bytes for each of its ``E / W`` edges.

Shapes: ``U`` users, ``I`` items, ``B`` rows, ``d`` embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import JaggedTensor

from cove_dist.distributed import Collectives, world
from cove_dist.embeddings.exchange import gather_rows
from cove_dist.models.cf.base import GraphRecommender
from cove_dist.models.layers.neighbors import NeighborSum
from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.base import Step
from cove_dist.tasks.cf.hardest import HardestOf
from cove_dist.tasks.cf.model import CFObjective
from data_pipeline.batch import Batch
from data_pipeline.history import History
from data_pipeline.schema import ENTITIES, Entity, Schema
from data_pipeline.streaming.transforms import ITEM_BLOCK, NEGATIVES, USER_BLOCK, occurrences

_USERS_AT_ONCE = 1 << 16


class GraphObjective(CFObjective):
    """A `CFObjective` with the embeddings of all users and items, propagated over the graph.

    Args:
        head: Model that propagates embeddings.
        quantizers, omega_q, schema, hardest: As in `CFObjective`.
        folder: Folder of the prepared data, whose training interactions are the graph.
    """

    head: GraphRecommender

    def __init__(
        self,
        head: GraphRecommender,
        quantizers: Mapping[Entity, CascadedQuantizer],
        omega_q: float,
        schema: Schema,
        hardest: HardestOf | None,
        folder: str,
    ) -> None:
        super().__init__(head, quantizers, omega_q, schema, hardest)
        self.num_users, self.num_items = schema.entity("user").num_rows, schema.entity("item").num_rows
        self._columns = {entity: schema.entity(entity) for entity in ENTITIES}
        self._folder = folder

    @cached_property
    def graph(self) -> tuple[NeighborSum, NeighborSum]:
        """Neighbor sums of this rank's users and of its items, read at first use."""
        history = History.load(self._folder, "train")
        return local_graph(history, self.num_users, self.num_items, world())

    def forward(self, looked_up: dict[str, JaggedTensor], batch: Batch) -> tuple[torch.Tensor, Step]:
        own_users, own_items = (looked_up[name].values() for name in (USER_BLOCK, ITEM_BLOCK))
        users, items, quantization = self.propagated(own_users, own_items)
        who, rows = batch.ids[self.user].values(), [batch.ids[name].values() for name in (self.item, NEGATIVES)]
        if self.hardest is not None:
            candidates = items.index_select(0, rows[1])
            chosen = self.hardest.choose(
                self.head, users.index_select(0, who), candidates, self.negative_lengths(batch)
            )
            rows[1] = rows[1].index_select(0, chosen)
        which, counts = torch.cat(rows), [len(ids) for ids in rows]  # one selection: its backward fills a whole table
        positives, negatives = items.index_select(0, which).split(counts)
        parts = {"rank": self.ranking_loss(users.index_select(0, who), positives, negatives, batch)}
        if self.head.regularization:
            raw_users, raw_items = self.whole(own_users, own_items)
            parts["regularization"] = self.penalty(raw_users.index_select(0, who), raw_items.index_select(0, which))
        # `total` weights by this rank's share of the batch; these are weighted by its share of the table.
        quantization = {name: loss / batch.weight for name, loss in quantization.items()}
        return self.total(parts, quantization, batch)

    def propagated(
        self, own_users: torch.Tensor, own_items: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return final embeddings of all users ``[U, d]`` and items ``[I, d]``, and quantization losses. Collective.

        Args:
            own_users, own_items: Rows that this rank holds, as looked up.
        """
        to_users, to_items = self.graph
        users, user_loss = self.fuse_block("user", own_users)
        items, item_loss = self.fuse_block("item", own_items)
        users, items = self.head.propagate(
            users,
            items,
            lambda part: to_users(gather_rows(part, self.num_items)),
            lambda part: to_items(gather_rows(part, self.num_users)),
        )
        return *self.whole(users, items), user_loss | item_loss

    def fuse_block(self, entity: Entity, rows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return this rank's fused users or items, and their quantization loss, weighted by its share of the table.

        The rows of unseen and of kept ids, which have no training interaction, are fused but not counted: no
        quantization loss moves them, and the codebooks do not depend on them. Under ``embeddings.id_dropout`` the
        ranking loss trains the row of unseen ids.
        """
        column, ranks = self._columns[entity], world()
        first, last = ranks.block_of(column.num_rows)
        ids = torch.arange(first, last, device=rows.device)
        fused, losses = self.fuse(entity, rows, [ids], fuse_only=ids >= column.num_trained)
        share = max(0, min(last, column.num_trained) - first) * ranks.size / column.num_trained
        return fused, {name: loss * share for name, loss in losses.items()}

    def whole(self, own_users: torch.Tensor, own_items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gather_rows(own_users, self.num_users), gather_rows(own_items, self.num_items)


def local_graph(
    history: History, num_users: int, num_items: int, ranks: Collectives
) -> tuple[NeighborSum, NeighborSum]:
    """Return this rank's rows of the normalized adjacency: sums over the items of its users, and vice versa.

    Args:
        history: Interactions of the training split.
        num_users, num_items: Rows of the tables; rows without interactions get sums of zero.
        ranks: Ranks that share the rows.
    """
    user_degrees = np.zeros(num_users)
    known = min(num_users, len(history))  # unseen users have no interactions
    user_degrees[:known] = np.diff(history.offsets)[:known]
    item_degrees = occurrences(history, num_items).astype(np.float64)
    first_user, last_user = ranks.block_of(num_users)
    first_item, last_item = ranks.block_of(num_items)
    of_users, of_items = [], []
    for start in range(0, known, _USERS_AT_ONCE):
        places, items = history.of(np.arange(start, min(start + _USERS_AT_ONCE, known)))
        users = places + start
        mine = (first_user <= users) & (users < last_user)
        of_users.append((users[mine], items[mine]))
        mine = (first_item <= items) & (items < last_item)
        of_items.append((users[mine], items[mine]))
    (users, items), (their_users, own_items) = (
        tuple(map(np.concatenate, zip(*p, strict=True))) for p in (of_users, of_items)
    )
    weights = [(user_degrees[u] * item_degrees[i]) ** -0.5 for u, i in ((users, items), (their_users, own_items))]
    to_users = users - first_user, items, weights[0], last_user - first_user
    to_items = own_items - first_item, their_users, weights[1], last_item - first_item
    return _neighbor_sum(*to_users), _neighbor_sum(*to_items)


def _neighbor_sum(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, num_rows: int) -> NeighborSum:
    return NeighborSum(torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(weights).float(), num_rows)
