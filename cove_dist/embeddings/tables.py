"""Builds TorchRec embedding collections from a schema, on the meta device.

A table has one row per id seen in training and one out-of-vocabulary row for unseen ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingCollection,
    get_embedding_names_by_table,
)
from torchrec.sparse.jagged_tensor import KeyedTensor

from data_pipeline.schema import Categorical, Schema

Tables: TypeAlias = EmbeddingBagCollection | EmbeddingCollection
META = torch.device("meta")
FIRST_ORDER_DIM = 4  # fbgemm stores rows in multiples of four floats
FIRST_ORDER_SUFFIX = "_first_order"


def bag_columns(schema: Schema) -> list[Categorical]:
    """Return the columns with one id per row, in schema order: the fields of a CTR model."""
    return [column for column in schema.categorical if not column.sequence]


def build_bags(schema: Schema, dim: int, first_order: bool) -> EmbeddingBagCollection:
    """Build tables ``[num_rows, dim]`` for columns with one id; with ``first_order`` also a scalar weight per id.

    The scalar is stored in `FIRST_ORDER_DIM` equal columns and read as their mean (`FieldReader`): all start at zero
    and get equal gradients, so they stay equal and change like one number under Adam, Adagrad and similar optimizers.
    """
    columns = _columns_by_table(bag_columns(schema))
    shapes = {name: dim for name in columns}
    if first_order:
        shapes |= {name + FIRST_ORDER_SUFFIX: FIRST_ORDER_DIM for name in columns}
    tables = [
        EmbeddingBagConfig(
            name=name,
            embedding_dim=table_dim,
            num_embeddings=columns[base_table(name)][0].num_rows,
            feature_names=[column.name for column in columns[base_table(name)]],
            pooling=PoolingType.SUM,
        )
        for name, table_dim in shapes.items()
    ]
    return EmbeddingBagCollection(tables=tables, device=META)


def build_unpooled(columns: Sequence[Categorical], dim: int) -> EmbeddingCollection:
    """Build tables ``[num_rows, dim]`` whose look-up returns a row per id, column by column."""
    tables = [
        EmbeddingConfig(
            name=name,
            embedding_dim=dim,
            num_embeddings=shared[0].num_rows,
            feature_names=[column.name for column in shared],
        )
        for name, shared in _columns_by_table(columns).items()
    ]
    return EmbeddingCollection(tables=tables, device=META)


def table_names(tables: Tables) -> list[str]:
    bags = isinstance(tables, EmbeddingBagCollection)
    return [table.name for table in (tables.embedding_bag_configs() if bags else tables.embedding_configs())]


def base_table(name: str) -> str:
    return name.removesuffix(FIRST_ORDER_SUFFIX)


class FieldReader:
    """Reads fields from a `KeyedTensor` by key, as its values follow the sharding plan's order, not the schema's."""

    def __init__(self, bags: EmbeddingBagCollection, columns: list[Categorical]) -> None:
        configs = bags.embedding_bag_configs()
        key_of = {
            (config.name, feature): key
            for config, keys in zip(configs, get_embedding_names_by_table(configs), strict=True)
            for feature, key in zip(config.feature_names, keys, strict=True)
        }
        self.keys = [key_of[column.table_name, column.name] for column in columns]
        first = [(column.table_name + FIRST_ORDER_SUFFIX, column.name) for column in columns]
        self.first_order_keys = [key_of[pair] for pair in first if pair in key_of]

    def fields(self, pooled: KeyedTensor, rows: int) -> list[torch.Tensor]:
        """Return one ``[B, d]`` per column, in schema order. ``rows`` is B; later rows pad ranks to equal lengths."""
        by_key = pooled.to_dict()
        return [by_key[key][:rows] for key in self.keys]

    def first_order(self, pooled: KeyedTensor, rows: int) -> torch.Tensor:
        """Return the scalar weights ``[B, F]``."""
        by_key = pooled.to_dict()
        return torch.stack([by_key[key][:rows].mean(dim=1) for key in self.first_order_keys], dim=1)


def _columns_by_table(columns: Sequence[Categorical]) -> dict[str, list[Categorical]]:
    tables: dict[str, list[Categorical]] = {}
    for column in columns:
        tables.setdefault(column.table_name, []).append(column)
    return tables
