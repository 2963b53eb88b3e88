"""Collaborative filtering: batch of positives and negatives -> tables -> quantizers -> model -> loss.

Shapes: ``B`` rows, ``n`` negatives a row, ``N`` items of a row and its negatives and edges, ``d`` width of a table row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add

import torch
from torchrec.modules.embedding_modules import EmbeddingCollection
from torchrec.sparse.jagged_tensor import JaggedTensor

from cove_dist.losses.pairs import PairLoss
from cove_dist.losses.rows import mean_over_rows, rank_weights
from cove_dist.models.cf.base import AttributeRecommender, GraphRecommender, Recommender
from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.base import EntityLookup, Objective, Step, TaskModel
from cove_dist.tasks.cf.hardest import HardestOf
from cove_dist.tasks.cf.pull import NeighborPull
from cove_dist.tasks.quantizers import EntityQuantizers
from data_pipeline.batch import Batch
from data_pipeline.schema import Entity, Schema
from data_pipeline.streaming.transforms import (
    EDGE_ATTRIBUTE,
    EDGE_ITEM,
    EDGE_NEGATIVE,
    ITEM_BLOCK,
    NEGATIVES,
    USER_BLOCK,
)


class CFTaskModel(TaskModel):
    """A collaborative filtering model.

    Args:
        tables, objective: As in `TaskModel`.
        columns: Columns of a batch, in order; a sharded collection keeps the order of its first look-up.
    """

    objective: CFObjective

    def __init__(self, tables: EmbeddingCollection, objective: CFObjective, columns: list[str]) -> None:
        super().__init__(tables, objective)
        self.columns = columns

    def column_of(self, entity: Entity) -> str:
        """Return the column for looking up rows of users or items."""
        if isinstance(self.objective.head, GraphRecommender):
            return USER_BLOCK if entity == "user" else ITEM_BLOCK
        return self.objective.user if entity == "user" else self.objective.item

    def entity_lookup(self, entity: Entity, schema: Schema) -> EntityLookup:
        name = self.column_of(entity)
        return EntityLookup(self.columns, self.columns.index(name), lambda looked_up, _: looked_up[name].values())


class CFObjective(Objective):
    """Losses of positives and negatives, of quantizers, and of the model's further training inputs.

    Args:
        head: The model.
        quantizers: Quantizers by entity; each replaces the looked-up vectors by fused ones (Eq. 4).
        omega_q: Weight of the quantization losses (Eq. 7 and 8).
        schema: Schema of the data.
        hardest: Choice of negatives among candidates; None: every sampled item is a negative.
        pull: Pull of users and items of an interaction towards each other; None: there is none.

    Attributes:
        loss: Loss of positives and negatives; None: that of the head.
    """

    last_of_kind: torch.Tensor

    def __init__(
        self,
        head: Recommender,
        quantizers: Mapping[Entity, CascadedQuantizer],
        omega_q: float,
        schema: Schema,
        hardest: HardestOf | None = None,
        pull: NeighborPull | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.quantizers = EntityQuantizers(quantizers)
        self.omega_q = omega_q
        self.hardest, self.pull = hardest, pull
        self.loss: PairLoss | None = None
        self.user, self.item = schema.entity("user").name, schema.entity("item").name
        sizes = list(schema.attributes.values())
        self.register_buffer("last_of_kind", torch.tensor(sizes, dtype=torch.int64).cumsum(0) - 1, persistent=False)

    def forward(self, looked_up: dict[str, JaggedTensor], batch: Batch) -> tuple[torch.Tensor, Step]:
        """Return the loss to differentiate, weighted for uneven ranks, and the outputs of the step."""
        head = self.head
        names = [self.item, NEGATIVES, *([EDGE_ITEM] if isinstance(head, AttributeRecommender) else [])]
        rows = [looked_up[name].values() for name in names]
        raw_users = looked_up[self.user].values()
        users, user_loss = self.fuse("user", raw_users, (batch.ids[name].values() for name in [self.user]))
        items, item_loss = list(rows), dict[str, torch.Tensor]()
        if "item" in self.quantizers:  # otherwise to join and split the rows again takes a tenth of a small step
            fused, item_loss = self.fuse("item", torch.cat(rows), (batch.ids[name].values() for name in names))
            items = list(fused.split([len(part) for part in rows]))
            if self.hardest is not None and not self.hardest.in_all_rows:
                # `total` weights by this rank's rows; a mean over vectors needs its vectors, of which rows differ.
                vectors = rank_weights(torch.full((), len(fused), device=fused.device))
                item_loss = {name: loss * vectors / batch.weight for name, loss in item_loss.items()}
        positives, negatives, *edge_items = items
        if self.hardest is not None:
            chosen = self.hardest.choose(head, users, negatives, self.negative_lengths(batch))
            negatives, rows[1] = negatives.index_select(0, chosen), rows[1].index_select(0, chosen)
        parts = {"rank": self.ranking_loss(users, positives, negatives, batch)}
        if isinstance(head, AttributeRecommender):
            edges = batch.ids[EDGE_ATTRIBUTE].values()
            kinds = torch.searchsorted(self.last_of_kind, edges)
            attributes, others = (looked_up[name].values() for name in (EDGE_ATTRIBUTE, EDGE_NEGATIVE))
            parts["edges"] = head.edge_loss(edge_items[0], attributes, others, kinds)
        if head.regularization:
            parts["regularization"] = self.penalty(raw_users, *rows[:2])
        if self.pull is not None:
            positive_ids = (batch.ids[name].values() for name in (self.user, self.item))
            parts["neighbor_pull"] = self.pull.loss(head, raw_users, rows[0], *positive_ids)
        return self.total(parts, user_loss | item_loss, batch)

    def fuse(
        self,
        entity: str,
        rows: torch.Tensor,
        ids: Iterable[torch.Tensor] = (),
        fuse_only: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return fused vectors ``[N, d]`` and the quantization loss; ``rows`` unchanged if there is no quantizer.

        Args:
            rows: Looked-up vectors ``[N, d]``.
            ids: Parts of the ids ``[N]`` of the rows; read only if there is a quantizer.
            fuse_only: Mask bool ``[N]`` of rows without a part in loss and codebooks; see `CascadedQuantizer.forward`.
        """
        if entity not in self.quantizers:
            return rows, {}
        parts = list(ids)
        output = self.quantizers[entity](rows, ids=torch.cat(parts) if parts else None, fuse_only=fuse_only)
        return output.fused, {f"quantization_{entity}": output.loss}

    def negative_lengths(self, batch: Batch) -> torch.Tensor:
        """Return the number of sampled items per row, int64 ``[B]``."""
        return batch.ids[NEGATIVES].lengths()[: len(batch)]

    def ranking_loss(
        self, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """Compute the ranking loss of ``users [B, d]``, ``positives [B, d]`` and ``negatives [B * n, d]``."""
        negatives = negatives.view(len(users), -1, negatives.shape[1])
        scores = self.head(users, torch.cat([positives.unsqueeze(1), negatives], dim=1))
        loss = self.head.loss if self.loss is None else self.loss
        return mean_over_rows(loss(scores[:, 0], scores[:, 1:]), batch.sample_weights, same_step=self.training)

    def penalty(self, users: torch.Tensor, *items: torch.Tensor) -> torch.Tensor:
        """Return ``regularization / 2`` times the squared norms of the rows' embeddings, averaged over the rows."""
        squares = reduce(add, (part.square().sum() for part in (users, *items)))
        return self.head.regularization / 2 * squares / len(users)

    def total(
        self, parts: dict[str, torch.Tensor], quantization: dict[str, torch.Tensor], batch: Batch
    ) -> tuple[torch.Tensor, Step]:
        loss = reduce(add, parts.values())
        if quantization:
            loss = loss + self.omega_q * reduce(add, quantization.values())
        losses = {"loss": loss, **parts, **quantization}
        return batch.weight * loss, Step(len(batch), {name: part.detach() for name, part in losses.items()})
