"""From a configuration to what is trained and evaluated: tables -> quantizers -> model -> squared error."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedTensor

from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.fields import FieldReader, build_field_tables
from cove_dist.embeddings.tables import bag_columns
from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.base import EntityLookup
from cove_dist.tasks.loaders import evaluation_loader
from cove_dist.tasks.quantizers import build_quantizers
from cove_dist.tasks.task import Evaluator
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema
from tests.added.rating.task import RatingModel, RatingRunConfig, SquaredError


class RatingStep(NamedTuple):
    """Outputs of one training step, detached."""

    ratings: torch.Tensor  # [B]
    losses: dict[str, torch.Tensor]

    @property
    def rows(self) -> int:
        return len(self.ratings)


class RatingObjective(nn.Module):
    """Everything after the look-up, held by every rank."""

    def __init__(
        self,
        model: RatingModel,
        reader: FieldReader,
        quantizers: dict[str, CascadedQuantizer],
        positions: dict[str, int],
        config: RatingRunConfig,
    ) -> None:
        super().__init__()
        self.model, self.reader, self.positions = model, reader, positions
        self.quantizers = nn.ModuleDict(quantizers)
        self.scale, self.omega_q = config.rating.scale, config.quantizer.omega_q

    def forward(self, pooled: KeyedTensor, batch: Batch) -> tuple[torch.Tensor, RatingStep]:
        fields, losses = list(self.reader.vectors(pooled, len(batch)).values()), {}
        vectors = {entity: fields[position] for entity, position in self.positions.items()}
        for entity, quantizer in self.quantizers.items():
            output = quantizer(vectors[entity])
            vectors[entity], losses[f"quantization_{entity}"] = output.fused, output.loss
        ratings = self.model(vectors["user"], vectors["item"])
        task = (self.scale * (ratings - batch.labels)).square().mean()
        loss = task + self.omega_q * sum(losses.values())
        losses = {"loss": loss, "task": task, **losses}
        return batch.weight * loss, RatingStep(ratings.detach(), {name: x.detach() for name, x in losses.items()})


class RatingTrainee(nn.Module):
    """The trained module, in the form the train pipeline traces: the tables read an attribute of the batch."""

    def __init__(self, tables: EmbeddingBagCollection, objective: RatingObjective) -> None:
        super().__init__()
        self.tables, self.objective = tables, objective

    def forward(self, batch: Batch) -> tuple[torch.Tensor, RatingStep]:
        return self.objective(self.tables(batch.ids), batch)

    def entity_lookup(self, entity: str, schema: Schema) -> EntityLookup:
        columns, position = [column.name for column in bag_columns(schema)], self.objective.positions[entity]
        name, reader = columns[position], self.objective.reader
        return EntityLookup(columns, position, lambda pooled, n: reader.vectors(pooled, n)[name])


def build_rating_trainee(config: RatingRunConfig, schema: Schema) -> RatingTrainee:
    """Build tables on the meta device, and everything else from torch's global generator."""
    columns = bag_columns(schema)
    tables = build_field_tables(columns, config.embeddings.dim, first_order=False)
    names = [column.name for column in columns]
    positions = {entity: names.index(schema.entity(entity).name) for entity in ("user", "item")}
    model, reader = config.model.build(RatingModel), FieldReader(tables, columns, {})
    return RatingTrainee(tables, RatingObjective(model, reader, build_quantizers(config), positions, config))


def build_rating_evaluator(
    config: RatingRunConfig, schema: Schema, split: str, context: DistributedContext
) -> Evaluator:
    """Build a pass over a split, which returns the metrics. Building it and calling it are collective."""
    loader = evaluation_loader(config, schema, split, context)

    @torch.no_grad()
    def evaluate(model: nn.Module) -> dict[str, float]:
        metric, was_training = SquaredError().to(context.device), model.training
        model.eval()
        for batch in loader:
            batch = batch.to(context.device)
            metric.update(model(batch)[1].ratings, batch.labels)
        model.train(was_training)
        return {"mse": float(metric.compute())}

    return evaluate
