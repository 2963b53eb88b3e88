"""The former rows of the rows of every table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from cove_dist.distributed import sum_over_ranks, world
from cove_dist.embeddings.tables import base_table
from cove_dist.warm_start.source import Source
from data_pipeline.id_matching import match_rows
from data_pipeline.schema import ATTRIBUTES, Schema


@dataclass(frozen=True)
class Counts:
    """What happens to the ids of a table; the out-of-vocabulary row, which is always matched, is not counted.

    Attributes:
        matched: Ids that keep their rows.
        new: Ids that had no row.
        gone: Ids whose rows are dropped.
        kept: Ids with a row that are in no training row of this run's data (``data.keep_ids``).
    """

    matched: int
    new: int
    gone: int
    kept: int


class Matching:
    """Finds the former rows of the rows of this run's tables, by their original ids.

    Args:
        source: The run to start from.
        schema: Schema of this run's data.
        folder: Folder of this run's data.
        tables: Names of the model's tables.

    Attributes:
        tables: Names of their id tables.
    """

    def __init__(self, source: Source, schema: Schema, folder: str, tables: Sequence[str]) -> None:
        self._former_folder, self._folder = source.config.data.path, folder
        self.tables = tuple(dict.fromkeys(base_table(table) for table in tables))
        self._former_seen, self._seen = (
            {name: _seen(each)[name] for name in self.tables} for each in (source.schema, schema)
        )
        self._kept = {column.table_name: column.kept for column in schema.categorical}
        self._found: dict[tuple[str, int, int], np.ndarray] = {}

    def former_num_rows(self, table: str) -> int:
        """Return the number of rows that a table had."""
        return self._former_seen[base_table(table)] + 1

    def num_rows(self, table: str) -> int:
        """Return the number of rows of a table."""
        return self._seen[base_table(table)] + 1

    def former_rows(self, table: str, first: int, last: int) -> np.ndarray:
        """Return the former rows of the rows ``first … last-1`` of a table: int64, -1 for new ids."""
        name = base_table(table)
        key = (name, first, last)
        if key not in self._found:
            seen = self._seen[name]
            of_ids = match_rows(
                self._former_folder, self._folder, name, self._former_seen[name], first, min(last, seen)
            )
            reserved = np.full(last - max(first, min(last, seen)), self._former_seen[name])
            self._found[key] = np.concatenate([of_ids, reserved])
        return self._found[key]

    def new_rows(self, table: str) -> np.ndarray:
        """Return the new rows in this rank's block of a table, int64."""
        first, last = world().block_of(self.num_rows(table))
        return np.flatnonzero(self.former_rows(table, first, last) < 0) + first

    def kept_rows(self, table: str) -> range:
        """Return the rows of a table whose ids are in no training row of this run's data."""
        last = self._seen[base_table(table)]
        return range(last - self._kept.get(base_table(table), 0), last)

    def trained(self, table: str) -> np.ndarray:
        """Return which rows of a table, without the out-of-vocabulary row, were matched: bool ``[ids]``. Collective."""
        rows, ranks = self.num_rows(table), world()
        block = torch.from_numpy((self.former_rows(table, *ranks.block_of(rows)) >= 0).astype(np.uint8))
        return ranks.gather_padded(block, 0, -(-rows // ranks.size))[: rows - 1].numpy().astype(bool)

    @cached_property
    def counts(self) -> dict[str, Counts]:
        """The counts of every id table. Collective."""
        found = {}
        for table, seen in self._seen.items():
            new = sum_over_ranks(torch.tensor(len(self.new_rows(table)), device="cpu"), torch.device("cpu"))
            matched = seen - int(new)
            found[table] = Counts(matched, int(new), self._former_seen[table] - matched, self._kept.get(table, 0))
        return found


def _seen(schema: Schema) -> dict[str, int]:
    """Return the ids with a row of their own in every id table."""
    seen = {column.table_name: column.num_seen for column in schema.categorical}
    return seen | {ATTRIBUTES: sum(schema.attributes.values())}
