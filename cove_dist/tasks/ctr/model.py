"""Click-through rate prediction: batch -> tables -> quantizers -> head -> loss.

Shapes: ``B`` batch, ``F`` fields, ``d`` embedding dimension, ``D`` dense columns, ``H`` levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torchrec.sparse.jagged_tensor import KeyedTensor

from cove_dist.config.checks import Component, refuse_unused
from cove_dist.embeddings.fields import Bags, FieldReader, LookedUp, Vectors, build_field_tables
from cove_dist.losses.ctr import BinaryCrossEntropy, CTRLoss
from cove_dist.losses.rows import mean_over_rows
from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.ctr.joint import JointHead
from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.base import EntityLookup, Objective, TaskModel
from cove_dist.tasks.ctr.config import CTRRunConfig
from cove_dist.tasks.quantizers import EntityQuantizers, build_quantizers
from cove_dist.types import Pooling
from data_pipeline.batch import Batch
from data_pipeline.schema import ENTITIES, Categorical, Entity, Schema


class Predictions(NamedTuple):
    """Outputs of one training step, detached."""

    logits: torch.Tensor  # [B], or [B, T] of several labels
    losses: dict[str, torch.Tensor]  # scalars: the total and its parts, each a mean over this rank's rows

    @property
    def rows(self) -> int:
        return len(self.logits)


class CTRObjective(Objective):
    """Losses of a head's logits and of the quantizers.

    The vector of a user or an item is its fused one (Eq. 4) wherever it occurs, in lists too: an item has the same
    vector as a candidate and in an interaction history. Losses, usage and statistics of a quantizer are those of the
    user and the item of each row; the entries of lists read the codes and pass gradients to them, but do not count.

    Args:
        head: Module ``(fields [B, F, d], dense [B, D]) -> logits [B]``; `CTRHead` states what else it may take.
        reader: Reads the fields from the looked-up embeddings.
        quantizers: Quantizers by entity.
        columns: By entity, its column of one id per row, and then the other columns of its table.
        omega_q: Weight of the quantization losses (Eq. 7 and 8).
        precision: Type for autocast of the head; float32: no autocast.
        loss: Loss of the logits; None: binary cross-entropy.
        label_weights: The weight of each label's loss in their sum; empty: the head has logits ``[B]`` of one label.
    """

    def __init__(
        self,
        head: CTRHead | JointHead,
        reader: FieldReader,
        quantizers: Mapping[Entity, CascadedQuantizer],
        columns: Mapping[Entity, Sequence[str]],
        omega_q: float,
        precision: torch.dtype = torch.float32,
        loss: CTRLoss | None = None,
        label_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.reader = reader
        self.quantizers = EntityQuantizers(quantizers)
        self.columns = columns
        self.omega_q = omega_q
        self.precision = precision
        self.loss = loss or BinaryCrossEntropy()
        self.label_weights = dict(label_weights or {})

    def forward(self, looked_up: KeyedTensor | LookedUp, batch: Batch) -> tuple[torch.Tensor, Predictions]:
        """Return the loss to differentiate, weighted for uneven ranks, and the predictions."""
        vectors, rows = self.reader.vectors(looked_up, len(batch)), len(batch)
        quantization = {f"quantization_{entity}": self._fuse(entity, vectors, batch) for entity in self.quantizers}
        inputs = [self.reader.fields(vectors, batch.ids, rows), batch.dense]
        if self.head.uses_first_order:
            inputs.append(self.reader.first_order(looked_up, batch.ids, rows))
        if self.head.attends_to_histories:
            inputs += [vectors[self.columns["item"][0]], *self.reader.histories(vectors, batch.ids, rows)]
        logits = self._score(*inputs)
        task, of_labels = self._task_loss(logits, batch)
        loss = task + self.omega_q * reduce(add, quantization.values()) if quantization else task
        losses = {"loss": loss, "task": task, **of_labels, **quantization}
        return batch.weight * loss, Predictions(logits.detach(), {name: x.detach() for name, x in losses.items()})

    def _task_loss(self, logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of the labels and, of several labels, that of each by ``task_<label>``."""

        def mean(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return mean_over_rows(self.loss(logits, labels), batch.sample_weights, same_step=self.training)

        if not self.label_weights:
            return mean(logits, batch.labels), {}
        columns = zip(self.label_weights, logits.unbind(1), batch.labels.unbind(1), strict=True)
        losses = {name: mean(*column) for name, *column in columns}
        total = reduce(add, (self.label_weights[name] * loss for name, loss in losses.items()))
        return total, {f"task_{name}": loss for name, loss in losses.items()}

    def compile_head(self) -> None:
        self.head.compile()

    def _fuse(self, entity: str, vectors: Vectors, batch: Batch) -> torch.Tensor:
        """Replace the vectors of an entity's columns by fused ones; return the quantization loss."""
        names = self.columns["user" if entity == "user" else "item"]
        if len(names) == 1:
            ids = batch.users if entity == "user" else batch.items  # equal ids have equal vectors: search them once
            output = self.quantizers[entity](vectors[names[0]], ids=ids)
            vectors[names[0]] = output.fused
            return output.loss
        parts = [vectors[name] for name in names]
        own, *others = (batch.ids[name].values() for name in names)  # rows of the table: too rare ids share some
        ids = torch.cat([own[: len(batch)], *others])
        fuse_only = torch.arange(len(ids), device=ids.device) >= len(batch)
        output = self.quantizers[entity](torch.cat(parts), ids=ids, fuse_only=fuse_only)
        vectors.update(zip(names, output.fused.split([len(part) for part in parts]), strict=True))
        return output.loss

    def _score(self, *inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs[0].device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            return self.head(*inputs).float()


class CTRTaskModel(TaskModel):
    """A click-through rate model."""

    tables: Bags
    objective: CTRObjective

    def entity_lookup(self, entity: Entity, schema: Schema) -> EntityLookup:
        columns, name = [column.name for column in schema.categorical], schema.entity(entity).name
        reader = self.objective.reader
        return EntityLookup(columns, columns.index(name), lambda looked_up, rows: reader.vectors(looked_up, rows)[name])


def columns_of(entity: Entity, schema: Schema) -> list[str]:
    """Return the column of an entity with one id per row, and then the other columns of its table."""
    own = schema.entity(entity)
    return [own.name, *(each.name for each in schema.categorical if each != own and each.table_name == own.table_name)]


def tables_by_row(columns: Sequence[Categorical], pooling: Mapping[str, Pooling], quantized: Sequence[str]) -> set[str]:
    """Return the tables whose look-ups must return a row per id.

    Args:
        columns: All columns.
        pooling: Pooling by column of lists; none for those that the head attends to.
        quantized: Names of tables that are quantized.
    """
    lists = [column for column in columns if column.sequence]
    return {
        column.table_name
        for column in lists
        if pooling.get(column.name, "max") == "max" or column.table_name in quantized
    }


def build_ctr_model(config: CTRRunConfig, schema: Schema) -> CTRTaskModel:
    """Build the model: tables on the meta device, other parameters initialized from torch's global generator.

    Raises:
        ConfigError: The model's arguments do not fit its signature, or have no effect with these data.
    """
    head_class, columns, pooling = config.model.kind_of(CTRHead), schema.categorical, config.pooled(schema)
    quantized = [schema.entity(entity).table_name for entity in config.quantizer.levels()]
    by_row = tables_by_row(columns, pooling, quantized)
    tables = build_field_tables(columns, config.embeddings.dim, head_class.uses_first_order, by_row)
    unused = head_class.unused(len(columns), len(schema.dense))
    refuse_unused(head_class, config.model.arguments, unused, "model")
    sizes, weights = (len(columns), config.embeddings.dim, len(schema.dense)), config.ctr.weights
    heads = [config.model.build(CTRHead, *sizes) for _ in weights or [None]]
    precision = getattr(torch, config.trainer.precision)
    loss = None if config.loss is None else Component.resolve(CTRLoss, config.loss, "loss", "loss").build()
    objective = CTRObjective(
        JointHead(heads) if weights else heads[0],
        FieldReader(tables, columns, pooling),
        build_quantizers(config),
        {entity: columns_of(entity, schema) for entity in ENTITIES},
        config.quantizer.omega_q,
        precision,
        loss,
        weights,
    )
    return CTRTaskModel(tables, objective)
