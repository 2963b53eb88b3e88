"""Builds TorchRec embedding collections from a schema, on the meta device.

A table has one row per id seen in training and one out-of-vocabulary row for unseen ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchrec.modules.embedding_configs import EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingCollection

from data_pipeline.schema import Categorical, Schema

META = torch.device("meta")
FIRST_ORDER_DIM = 4  # fbgemm stores rows in multiples of four floats
FIRST_ORDER_SUFFIX = "_first_order"


def build_unpooled(columns: Sequence[Categorical], dim: int) -> EmbeddingCollection:
    """Build tables ``[num_rows, dim]`` whose look-up returns a row per id, column by column."""
    tables = [
        EmbeddingConfig(
            name=name,
            embedding_dim=dim,
            num_embeddings=shared[0].num_rows,
            feature_names=[column.name for column in shared],
        )
        for name, shared in columns_by_table(columns).items()
    ]
    return EmbeddingCollection(tables=tables, device=META)


def bag_columns(schema: Schema) -> list[Categorical]:
    """Return the columns with one id per row, in schema order."""
    return [column for column in schema.categorical if not column.sequence]


def base_table(name: str) -> str:
    return name.removesuffix(FIRST_ORDER_SUFFIX)


def columns_by_table(columns: Sequence[Categorical]) -> dict[str, list[Categorical]]:
    """Return the columns of every table."""
    tables: dict[str, list[Categorical]] = {}
    for column in columns:
        tables.setdefault(column.table_name, []).append(column)
    return tables
