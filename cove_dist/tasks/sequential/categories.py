"""Ready-made categories of items, from a file beside the prepared data: as features, and for the two-stage classifier.

Shapes: ``V`` items of training, ``C`` categories, ``d`` embedding dimension.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import nn

from cove_dist.errors import ConfigError
from data_pipeline.integrity import checked_file
from data_pipeline.schema import Schema


class ItemCategories(nn.Module):
    """The category of every item, and a vector of every category, added to what a sequence model reads.

    Args:
        numbers: int64 ``[V]``, below C.
        count: C.
        dim: d.
    """

    numbers: torch.Tensor

    def __init__(self, numbers: torch.Tensor, count: int, dim: int) -> None:
        super().__init__()
        self.count = count
        unseen = numbers.new_tensor([count])  # items that training never saw share a vector of their own
        self.register_buffer("numbers", torch.cat([numbers, unseen]), persistent=False)
        self.vectors = nn.Embedding(count + 1, dim)
        nn.init.normal_(self.vectors.weight, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Vectors ``[..., d]`` for items int64 ``[...]``."""
        return self.vectors(self.numbers[ids])


def read_categories(folder: Path | str, schema: Schema, column: str) -> tuple[torch.Tensor, int]:
    """The category of every item of training, int64 ``[V]``, and how many there are. Items without one share one.

    Raises:
        ConfigError: there is no such file or column, or it holds lists.
    """
    item = schema.entity("item")
    path = Path(folder) / "categories" / f"{item.table_name}.parquet"
    hint = f"make it: cove cluster_items path={folder}"
    if not path.is_file():
        raise ConfigError(f"sequential.categories = {column}: {path}: no such file; {hint}")
    table = pq.read_table(checked_file(folder, f"categories/{path.name}"))
    kinds = [name for name in table.column_names if name not in ("id", "original_id")]
    if column not in kinds:
        raise ConfigError(
            f"sequential.categories = {column}: {path} has {', '.join(kinds)}; choose one of them, or {hint}"
        )
    if "list" in str(table.schema.field(column).type):
        raise ConfigError(
            f"sequential.categories = {column}: {path}: several categories an item; choose a column of one"
        )
    ids, codes = table["id"].to_numpy(), pc.dictionary_encode(table[column].combine_chunks(), null_encoding="encode")
    count = len(codes.dictionary)
    numbers = np.full(item.num_ids, count)
    numbers[ids] = codes.indices.to_numpy()
    without = bool((numbers[: item.num_seen] == count).any())
    return torch.from_numpy(numbers[: item.num_seen]), count + without
