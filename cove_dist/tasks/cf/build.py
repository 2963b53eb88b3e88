"""Builds collaborative filtering models from a configuration and a schema."""

from __future__ import annotations

from dataclasses import replace

from cove_dist.config.checks import Component
from cove_dist.embeddings.tables import build_unpooled
from cove_dist.errors import ConfigError
from cove_dist.losses.pairs import PairLoss
from cove_dist.models.cf.base import AttributeRecommender, GraphRecommender, Recommender
from cove_dist.tasks.cf.config import CFRunConfig
from cove_dist.tasks.cf.graph import GraphObjective
from cove_dist.tasks.cf.hardest import HardestOf
from cove_dist.tasks.cf.model import CFObjective, CFTaskModel
from cove_dist.tasks.cf.pull import NeighborPull
from cove_dist.tasks.quantizers import build_quantizers
from cove_dist.tasks.task import Lookups
from data_pipeline.schema import ATTRIBUTES, Categorical, Schema
from data_pipeline.streaming.transforms import (
    EDGE_ATTRIBUTE,
    EDGE_ITEM,
    EDGE_NEGATIVE,
    ITEM_BLOCK,
    NEGATIVES,
    USER_BLOCK,
    list_column,
)


def build_cf_model(config: CFRunConfig, schema: Schema) -> CFTaskModel:
    """Build the model: tables on the meta device, other parameters initialized from torch's global generator.

    Raises:
        ConfigError: The model's arguments do not fit its signature, or it requires columns the dataset does not have.
    """
    head_class = config.model.kind_of(Recommender)
    check_data(head_class, schema)
    sizes = (len(schema.attributes),) if issubclass(head_class, AttributeRecommender) else ()
    head = config.model.build(Recommender, config.embeddings.dim, *sizes)
    quantizers = build_quantizers(config, head_class.rows_per_id)
    looked_up = table_columns(head_class, schema)
    tables = build_unpooled(looked_up, head_class.rows_per_id * config.embeddings.dim)
    omega_q, negatives = config.quantizer.omega_q, config.negatives
    of, in_all_rows = negatives.hardest_of, negatives.hardest_share == 1
    hardest = HardestOf(negatives.count, of, in_all_rows) if of > 1 else None
    if isinstance(head, GraphRecommender):
        objective: CFObjective = GraphObjective(head, quantizers, omega_q, schema, hardest, config.data.path)
    else:
        weight, num_items = config.interactions.neighbor_pull, schema.entity("item").num_seen
        pull = NeighborPull(weight, config.data.path, num_items) if weight else None
        objective = CFObjective(head, quantizers, omega_q, schema, hardest, pull)
    if config.loss is not None:
        objective.loss = Component.resolve(PairLoss, config.loss, "loss", "loss").build()
    drawn_for = (schema.entity("user").name, schema.entity("item").name, NEGATIVES)
    columns = dict.fromkeys([*drawn_for, *(column.name for column in looked_up)])
    return CFTaskModel(tables, objective, list(columns))


def check_data(head_class: type[Recommender], schema: Schema) -> None:
    """Raise ConfigError if the data are not implicit feedback, or lack attributes that the model needs."""
    if not schema.implicit:
        raise ConfigError(
            f"model = {head_class.__name__}: learns from implicit feedback, and {schema.name} has labels."
            " Prepare it with implicit=true split=leave_one_out, or choose a CTR model"
        )
    if issubclass(head_class, AttributeRecommender) and not schema.attributes:
        raise ConfigError(
            f"model = {head_class.__name__}: needs attributes of items, and {schema.name} has none."
            " Choose another model, or data with attributes"
        )


def interactions(schema: Schema) -> Schema:
    """Return the schema with the two columns that collaborative filtering reads."""
    return replace(schema, categorical=(schema.entity("user"), schema.entity("item")), dense=())


def table_columns(head_class: type[Recommender], schema: Schema) -> list[Categorical]:
    """Return the columns that a training step looks up."""
    user, item = schema.entity("user"), schema.entity("item")
    if issubclass(head_class, GraphRecommender):
        return [list_column(USER_BLOCK, user), list_column(ITEM_BLOCK, item)]
    columns = [user, item, list_column(NEGATIVES, item)]
    if issubclass(head_class, AttributeRecommender):
        total = sum(schema.attributes.values())
        attribute = Categorical(ATTRIBUTES, total, total)
        columns.append(list_column(EDGE_ITEM, item))
        columns += [list_column(name, attribute) for name in (EDGE_ATTRIBUTE, EDGE_NEGATIVE)]
    return columns


def lookups(config: CFRunConfig, schema: Schema, rows: int, world_size: int) -> Lookups:
    """Return the ids that a training step looks up; see `Task.lookups`."""
    columns = table_columns(config.model.kind_of(Recommender), schema)
    blocks = {column.name: -(-column.num_rows // world_size) for column in columns}
    per_batch = {name: blocks[name] for name in (USER_BLOCK, ITEM_BLOCK) if name in blocks}
    per_row = dict.fromkeys(blocks.keys() - per_batch.keys(), 1)
    if NEGATIVES in per_row:
        per_row[NEGATIVES] = config.negatives.count * config.negatives.hardest_of
    return Lookups(per_row, per_batch, rows)
