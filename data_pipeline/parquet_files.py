"""Read and write the Parquet files of a prepared folder: pages have checksums, and row groups have digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.digests import ROW_GROUPS

BATCH_ROWS = 65_536  # rows in memory at a time


def write_parquet(rows: pa.Table | pa.RecordBatchReader, path: Path) -> None:
    """Write ``rows``, in order, as one Parquet file with row groups of `BATCH_ROWS` rows."""
    reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
    write_row_groups(row_groups(reader, BATCH_ROWS), reader.schema, path)


def write_row_groups(groups: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write a Parquet file with a row group per table, checksums of the pages, and digests of the row groups."""
    digests: list[tuple[int, str]] = []
    with path.open("wb+") as file, pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as out:
        for group in groups:
            start = digests[-1][0] if digests else 0
            out.write_table(group, row_group_size=max(len(group), 1))
            end = file.tell()
            file.seek(start)
            digests.append((end, hashlib.sha256(file.read(end - start)).hexdigest()))
        out.add_key_value_metadata({ROW_GROUPS.decode(): json.dumps(digests, separators=(",", ":"))})


def open_parquet(path: Path, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a Parquet file whose pages are compared with their checksums, where they have some, when they are read.

    Args:
        path: The file.
        footer: Its footer, if it has been read already.
    """
    return pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)


class GroupedWriter:
    """Writes small batches as a Parquet file whose row groups have `BATCH_ROWS` rows or a batch more, except the last.

    Args:
        path: The file.
        schema: Its columns.
        compression: As of `pyarrow.parquet.ParquetWriter`.
    """

    def __init__(self, path: Path, schema: pa.Schema, compression: str = "snappy") -> None:
        self._writer = pq.ParquetWriter(path, schema, compression=compression)
        self._pending: list[pa.RecordBatch] = []

    def __enter__(self) -> GroupedWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._write_pending()
        self._writer.close()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write rows, now or with later ones."""
        self._pending.append(batch)
        if sum(each.num_rows for each in self._pending) >= BATCH_ROWS:
            self._write_pending()

    def _write_pending(self) -> None:
        if rows := [each for each in self._pending if each.num_rows]:
            self._writer.write_table(pa.Table.from_batches(rows))
        self._pending = []


def row_groups(batches: pa.RecordBatchReader, size: int) -> Iterator[pa.Table]:
    """Cut a stream of batches of any length into tables of ``size`` rows; the last may be shorter."""
    pending: list[pa.RecordBatch] = []
    missing = size
    for batch in batches:
        while batch.num_rows:
            pending.append(batch.slice(0, missing))
            missing -= pending[-1].num_rows
            batch = batch.slice(pending[-1].num_rows)
            if missing == 0:
                yield pa.Table.from_batches(pending)
                pending, missing = [], size
    if pending:
        yield pa.Table.from_batches(pending)
