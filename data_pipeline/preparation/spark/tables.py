"""Tables of a Spark job: Parquet files in the scratch folder, which the driver and all executors see."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from data_pipeline.parquet_files import BATCH_ROWS

_PART = re.compile(r"part-(\d+)")  # the number of the task that wrote the file
_ROWS_OF_TASK = 33  # bits of monotonically_increasing_id for the row in its task


@dataclass(frozen=True)
class Tables:
    """Tables by name, as temporary views of a session.

    Attributes:
        session: The session, which nobody else uses.
        folder: Folder of the files.
    """

    session: SparkSession
    folder: Path
    _frames: dict[str, DataFrame] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)  # of the tables that are no views
    _used: list[Path] = field(default_factory=list)

    def new_folder(self) -> Path:
        """Return a path in the scratch folder that does not exist."""
        self._used.append(self.folder / f"{len(self._used):05d}")
        return self._used[-1]

    def view(self, name: str, frame: DataFrame) -> None:
        """Give rows a name; they are computed whenever they are read."""
        self._frames[name] = frame
        frame.createOrReplaceTempView(f"`{name}`")

    def create(self, name: str, frame: DataFrame) -> None:
        """Compute rows once and give them a name. An earlier table of that name is removed."""
        before = self._files.get(name)
        self._files[name] = self._written(frame)
        self.view(name, self._read(self._files[name], frame.schema))
        if before is not None:
            shutil.rmtree(before)

    def create_from_files(self, name: str, folder: Path) -> None:
        """Give the rows of Parquet files a name."""
        form = from_arrow_schema(pq.read_schema(_parts(folder)[0]), prefer_timestamp_ntz=True)
        self._files[name] = folder
        self.view(name, self._read(folder, form))

    def rename(self, name: str, new: str) -> None:
        """Give a table another name. Views of it stay as they are."""
        frame = self._frames[name]
        if name in self._files:
            self._files[new] = self._files.pop(name)
        self.drop(name)
        self.view(new, frame)

    def drop(self, name: str) -> None:
        """Forget a name; views of the table stay as they are."""
        del self._frames[name]
        self._files.pop(name, None)
        self.session.catalog.dropTempView(name)

    def count(self, name: str) -> int:
        """Count the rows of a table or view, by the footers of its files where it has some."""
        if name in self._files:
            return sum(pq.read_metadata(file).num_rows for file in _parts(self._files[name]))
        return self._frames[name].count()

    def number(self, ordered: DataFrame) -> str:
        """Create a table of rows with ``__number``, their number from 0 in the order of ``ordered``.

        Returns:
            The name of the table.
        """
        marked = ordered.withColumn("__number", F.monotonically_increasing_id())
        folder = self._written(marked)
        rows: dict[int, int] = {}
        for file in _parts(folder):
            rows[_task(file)] = rows.get(_task(file), 0) + pq.read_metadata(file).num_rows
        counts = [rows.get(task, 0) for task in range(max(rows, default=0) + 1)]
        starts = F.array(*(F.lit(start).cast("long") for start in accumulate(counts[:-1], initial=0)))
        task = F.shiftright("__number", _ROWS_OF_TASK).cast("int")
        place = F.col("__number").bitwiseAND(F.lit((1 << _ROWS_OF_TASK) - 1))
        name = f"numbered {folder.name}"
        self._files[name] = folder
        self.view(name, self._read(folder, marked.schema).withColumn("__number", F.get(starts, task) + place))
        return name

    def stream(self, ordered: DataFrame) -> pa.RecordBatchReader:
        """Compute rows in their order, and stream them to this machine."""
        schema = pa.schema([pa.field(each.name, each.type) for each in to_arrow_schema(ordered.schema)])
        folder = self._written(ordered)
        return pa.RecordBatchReader.from_batches(schema, _batches(folder, schema))

    def _written(self, frame: DataFrame) -> Path:
        folder = self.new_folder()
        frame.write.parquet(str(folder))
        return folder

    def _read(self, folder: Path, form: StructType) -> DataFrame:
        return self.session.read.schema(form).parquet(str(folder))


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"), key=lambda file: (_task(file), file.name))


def _task(file: Path) -> int:
    found = _PART.match(file.name)
    assert found is not None, file
    return int(found[1])


def _batches(folder: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of all files in order, and remove each file when its rows have been read."""
    for file in _parts(folder):
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS):
                columns = [column.cast(each.type) for column, each in zip(batch.columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
        file.unlink()
