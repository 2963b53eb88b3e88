"""Ready-made item categories from a file next to the prepared data: as features, and for the two-stage classifier.

Shapes: ``V`` items seen in training, ``C`` categories, ``d`` embedding dimension.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from cove_dist.errors import ConfigError
from data_pipeline.integrity import checked_file
from data_pipeline.schema import Schema, category_kinds


class ItemCategories(nn.Module):
    """The category of every item, and an embedding per category that is added to the model's input.

    Args:
        numbers: Category of each item, int64 ``[V]``, below C.
        count: Number of categories C.
        dim: Embedding dimension d.
    """

    numbers: torch.Tensor

    def __init__(self, numbers: torch.Tensor, count: int, dim: int) -> None:
        super().__init__()
        self.count = count
        unseen = numbers.new_tensor([count])  # unseen items share one vector
        self.register_buffer("numbers", torch.cat([numbers, unseen]), persistent=False)
        self.vectors = nn.Embedding(count + 1, dim)
        nn.init.normal_(self.vectors.weight, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the category vectors ``[..., d]`` of items int64 ``[...]``."""
        return self.vectors(self.numbers[ids])


def read_categories(folder: Path | str, schema: Schema, column: str) -> tuple[torch.Tensor, int]:
    """Read the category of every item seen in training, int64 ``[V]``, and their number. Items without one share one.

    Raises:
        ConfigError: The file or column does not exist, or an item has several categories.
    """
    item = schema.entity("item")
    path = Path(folder) / "categories" / f"{item.table_name}.parquet"
    hint = f"make it: cove cluster_items path={folder} (of a copy, if runs on this folder are still needed)"
    if not path.is_file():
        raise ConfigError(f"sequential.categories = {column}: {path}: no such file; {hint}")
    table = pq.read_table(checked_file(folder, f"categories/{path.name}"))
    kinds = category_kinds(table.column_names)
    if column not in kinds:
        raise ConfigError(
            f"sequential.categories = {column}: {path} has {', '.join(kinds)}; choose one of them, or {hint}"
        )
    if "list" in str(table.schema.field(column).type):
        raise ConfigError(
            f"sequential.categories = {column}: {path}: several categories an item; choose a column of one"
        )
    ids, codes = table["id"].to_numpy(), table[column].combine_chunks().dictionary_encode(null_encoding="encode")
    count = len(codes.dictionary)
    numbers = np.full(item.num_ids, count)
    numbers[ids] = codes.indices.to_numpy()
    without = bool((numbers[: item.num_seen] == count).any())
    return torch.from_numpy(numbers[: item.num_seen]), count + without
