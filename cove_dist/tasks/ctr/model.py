"""Click-through rate prediction: batch -> tables -> quantizers -> head -> loss.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns, ``H`` levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedTensor

from cove_dist.config.checks import Component, refuse_unused
from cove_dist.embeddings.tables import FieldReader, bag_columns, build_bags
from cove_dist.losses.ctr import BinaryCrossEntropy, CTRLoss
from cove_dist.models.ctr.base import CTRHead
from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.base import EntityLookup, Objective, TaskModel
from cove_dist.tasks.ctr.config import CTRRunConfig
from cove_dist.tasks.quantizers import EntityQuantizers, build_quantizers
from data_pipeline.batch import Batch
from data_pipeline.schema import ENTITIES, Entity, Schema


class Predictions(NamedTuple):
    """Outputs of one training step, detached."""

    logits: torch.Tensor  # [B]
    losses: dict[str, torch.Tensor]  # scalars: the total and its parts, each a mean over this rank's rows

    @property
    def rows(self) -> int:
        return len(self.logits)


class CTRObjective(Objective):
    """Losses of a head's logits and of the quantizers.

    Args:
        head: Module ``(fields [B, F, d], dense [B, D]) -> logits [B]``; also ``first_order [B, F]`` if it uses it.
        reader: Reads the fields from the looked-up embeddings.
        quantizers: Quantizers by field position; each replaces the field's embedding by its fused vector (Eq. 4).
        omega_q: Weight of the quantization losses (Eq. 7 and 8).
        precision: Type for autocast of the head; float32: no autocast.
        loss: Loss of the logits; None: binary cross-entropy.
    """

    def __init__(
        self,
        head: CTRHead,
        reader: FieldReader,
        quantizers: Mapping[Entity, tuple[int, CascadedQuantizer]],
        omega_q: float,
        precision: torch.dtype = torch.float32,
        loss: CTRLoss | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.reader = reader
        self.quantizers = EntityQuantizers({entity: quantizer for entity, (_, quantizer) in quantizers.items()})
        self.positions = {entity: position for entity, (position, _) in quantizers.items()}
        self.omega_q = omega_q
        self.precision = precision
        self.loss = loss or BinaryCrossEntropy()

    def forward(self, pooled: KeyedTensor, batch: Batch) -> tuple[torch.Tensor, Predictions]:
        """Return the loss to differentiate, weighted for uneven ranks, and the predictions."""
        fields = self.reader.fields(pooled, len(batch))
        quantization = {}
        for entity, quantizer in self.quantizers.items():
            ids = batch.users if entity == "user" else batch.items  # equal ids have equal embeddings: search them once
            output = quantizer(fields[self.positions[entity]], ids=ids)
            fields[self.positions[entity]] = output.fused
            quantization[f"quantization_{entity}"] = output.loss
        first_order = (self.reader.first_order(pooled, len(batch)),) if self.reader.first_order_keys else ()
        logits = self._score(torch.stack(fields, dim=1), batch.dense, *first_order)
        task = self.loss(logits, batch.labels)
        loss = task + self.omega_q * reduce(add, quantization.values()) if quantization else task
        losses = {"loss": loss, "task": task, **quantization}
        return batch.weight * loss, Predictions(logits.detach(), {name: x.detach() for name, x in losses.items()})

    def compile_head(self) -> None:
        self.head.compile()

    def _score(self, *inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs[0].device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            return self.head(*inputs).float()


class CTRModel(TaskModel):
    """A click-through rate model."""

    tables: EmbeddingBagCollection
    objective: CTRObjective

    def entity_lookup(self, entity: Entity, schema: Schema) -> EntityLookup:
        columns, position = [column.name for column in bag_columns(schema)], entity_positions(schema)[entity]
        return EntityLookup(
            columns, position, lambda pooled, rows: self.objective.reader.fields(pooled, rows)[position]
        )


def entity_positions(schema: Schema) -> dict[str, int]:
    """Return the field positions of the user and of the item."""
    names = [column.name for column in bag_columns(schema)]
    return {role: names.index(schema.entity(role).name) for role in ENTITIES}


def build_ctr_model(config: CTRRunConfig, schema: Schema) -> CTRModel:
    """Build the model: tables on the meta device, other parameters initialized from torch's global generator.

    Raises:
        ConfigError: The model's arguments do not fit its signature, or have no effect with these data.
    """
    head_class = config.model.kind_of(CTRHead)
    columns = bag_columns(schema)
    tables = build_bags(schema, config.embeddings.dim, head_class.uses_first_order)
    unused = head_class.unused(len(columns), len(schema.dense))
    refuse_unused(head_class, config.model.arguments, unused, "model")
    head = config.model.build(CTRHead, len(columns), config.embeddings.dim, len(schema.dense))
    positions = entity_positions(schema)
    quantizers = {entity: (positions[entity], quantizer) for entity, quantizer in build_quantizers(config).items()}
    precision = getattr(torch, config.trainer.precision)
    reader = FieldReader(tables, columns)
    loss = None if config.loss is None else Component.resolve(CTRLoss, config.loss, "loss").build()
    return CTRModel(tables, CTRObjective(head, reader, quantizers, config.quantizer.omega_q, precision, loss))
