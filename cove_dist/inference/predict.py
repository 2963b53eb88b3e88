"""Scores of new rows, from files or tables with the columns of training, in original ids."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from cove_dist.config import settings
from cove_dist.config.composition import load_settings
from cove_dist.errors import ConfigError
from cove_dist.faults.outputs import check_writable
from cove_dist.inference.arguments import check_choice
from cove_dist.inference.request import RunRequest
from cove_dist.inference.session import Session, UnknownPair
from cove_dist.types import TableFile, Text
from data_pipeline.files import replaced_file
from data_pipeline.id_tables import combined
from data_pipeline.schema import Entity, Schema

logger = logging.getLogger(__name__)

SCORE = "score"
_PARQUET = (".parquet", ".pq")
_ROWS = 65_536  # rows per part of a file


@settings
class PredictConfig(RunRequest):
    rows: Text
    user: Text | None
    item: Text | None
    unknown: UnknownPair
    output: TableFile | None


def predict(overrides: list[str]) -> tuple[Path, int, int]:
    """Score the rows of a file, a part at a time; the output is complete or absent.

    Returns:
        The file, the number of rows written, and the number of rows skipped.

    Raises:
        ConfigError, CheckpointError: The run or file does not exist, a column is missing, ids are unknown, or the
            output is not a file that can be written.
    """
    request = load_settings(PredictConfig, "predict", overrides)
    path = Path(request.run) / "scored.parquet" if request.output is None else Path(request.output)
    check_writable(path.parent)
    if path.is_dir():
        raise ConfigError(f"output = {path}: is a folder; give the name of a file")
    session = request.session()
    path.parent.mkdir(parents=True, exist_ok=True)
    read = written = 0
    writer = None
    with replaced_file(path) as partial:
        for rows in read_rows(Path(request.rows), column_types(session, request.user, request.item)):
            scored = score_rows(session, rows, request.user, request.item, request.unknown)
            writer = writer or open_writer(path, partial, scored.schema)
            writer.write_table(scored)
            read, written = read + len(rows), written + len(scored)
        if writer is None:
            raise ConfigError(f"rows = {request.rows}: has no rows")
        writer.close()
    return path, written, read - written


def open_writer(path: Path, partial: Path, schema: pa.Schema) -> pq.ParquetWriter | csv.CSVWriter:
    """Open the temporary file of a table, in the format that the suffix of the path names.

    Raises:
        ConfigError: A column cannot be written as CSV.
    """
    if path.suffix.lower() != ".csv":
        return pq.ParquetWriter(partial, schema, compression="zstd")
    if nested := [field.name for field in schema if pa.types.is_nested(field.type)]:
        raise ConfigError(f"output = {path}: CSV cannot hold the lists of column {', '.join(nested)}; write .parquet")
    return csv.CSVWriter(partial, schema)


def predict_table(session: Session, rows: Any, *, user: str | None, item: str | None, unknown: UnknownPair) -> pa.Table:
    """Score the rows of a file or of a table; see `cove_dist.inference.run.Run.predict`."""
    check_choice("unknown", unknown, "error", "skip", "oov_row")
    named = isinstance(rows, str | Path)
    parts = read_rows(Path(rows), column_types(session, user, item)) if named else [as_table(rows, "rows")]
    scored = [score_rows(session, part, user, item, unknown) for part in parts]
    if not scored:
        raise ConfigError(f"rows = {rows}: has no rows")
    return pa.concat_tables(scored)


def column_types(session: Session, user: str | None, item: str | None) -> dict[str, pa.DataType]:
    """Return the types of the columns of CSV files that a run reads, and that their first rows may not show.

    Ids that are text in the data, and lists, are text even if they look like numbers; columns of numbers are float64.
    Users and items may be named otherwise in the files.
    """
    schema = session.schema
    named = {schema.entity(entity).name: name for entity, name in entity_columns(schema, user, item).items()}
    types = {column.name: pa.float64() for column in schema.dense}
    for column in schema.categorical:
        if column.bins is not None:
            types[column.name] = pa.float64()
        elif column.sequence or session.id_tables.of(column).of_text:
            types[column.name] = pa.string()
    return {named.get(name, name): kind for name, kind in types.items()}


def entity_columns(schema: Schema, user: str | None, item: str | None) -> dict[Entity, str]:
    """Return the columns of users and items in files and tables; None: named as in the prepared data."""
    return {"user": user or schema.entity("user").name, "item": item or schema.entity("item").name}


def score_rows(session: Session, rows: pa.Table, user: str | None, item: str | None, unknown: UnknownPair) -> pa.Table:
    """Return the rows with their scores, without skipped rows; of several labels also a column ``score_<label>`` each.

    Where the model reads a column of such a name, ``predicted_score`` takes the place of ``score`` in all of them.

    Raises:
        ConfigError: A column is missing, is taken, or has unknown ids.
    """
    names = entity_columns(session.schema, user, item)
    required = session.inference.required_context()
    if missing := [name for name in (*names.values(), *required) if name not in rows.column_names]:
        roles = [f"{role}=COLUMN" for role, name in names.items() if name in missing]
        hint = f"; name them by {' '.join(roles)}" if roles else ""
        raise ConfigError(f"rows: no column {', '.join(missing)}; there are {', '.join(rows.column_names)}{hint}")
    labels = session.inference.labels if len(session.inference.labels) > 1 else ()
    added = {label: f"{SCORE}_{label}" for label in labels} | {None: SCORE}
    if any(name in required for name in added.values()):
        added = {label: f"predicted_{name}" for label, name in added.items()}
    for name in added.values():
        if name in rows.column_names:
            raise ConfigError(f"rows: there is a column {name} already; rename it")
    score = partial(
        session.score,
        combined(rows[names["user"]]),
        combined(rows[names["item"]]),
        columns={name: combined(rows[name]) for name in required},
        unknown=unknown,
    )
    of_labels = {label: score(label=label) for label in labels}
    scores = of_labels[labels[0]] if labels else score()
    known = ~np.isnan(scores)
    for label, values in of_labels.items():
        rows = rows.append_column(added[label], pa.array(values))
    if not known.all():
        logger.info("Left out %d of %d rows whose user or item is unknown to training", int((~known).sum()), len(rows))
    return rows.append_column(added[None], pa.array(scores)).filter(pa.array(known))


def as_table(rows: Any, key: str, also: str = "") -> pa.Table:
    """Return a table of Arrow, a record batch or a data frame as a table of Arrow.

    Args:
        rows: A ``pyarrow.Table`` or ``RecordBatch``, a data frame of pandas, or one that can be passed to Arrow.
        key: The argument, for errors.
        also: What else is allowed, for errors.

    Raises:
        ConfigError: It is something else.
    """
    try:
        return rows if isinstance(rows, pa.Table) else pa.table(rows)
    except (TypeError, ValueError, pa.ArrowException) as error:  # ValueError: of dictionaries of columns too
        raise ConfigError(
            f"{key}: of type {type(rows).__name__}; give {also}a pyarrow.Table, a RecordBatch, a DataFrame, or the path"
            f" of a Parquet or CSV file: {error}"
        ) from error


def read_rows(path: Path, types: Mapping[str, pa.DataType], key: str = "rows") -> Iterator[pa.Table]:
    """Read a Parquet or CSV file, or all files of a folder or glob in order of their names, a part at a time.

    Args:
        path: File, folder or glob.
        types: Types of columns of CSV files; of other columns they are those of the first megabyte.
        key: The setting that names it, for errors.

    Raises:
        ConfigError: A file cannot be read, or has other columns than the first; or there is none.
    """
    first: pa.Schema | None = None
    for file in _files(path, key):
        try:
            for part in _parts(file, types):
                first = part.schema if first is None else first
                yield part if part.schema.equals(first) else part.select(first.names).cast(first)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            other = first is not None and file != path
            reason = (
                f"other columns than those before it, {first}" if other else "neither Parquet nor CSV with a header"
            )
            raise ConfigError(f"{key} = {file}: {reason}: {error}") from error


def _files(path: Path, key: str) -> list[Path]:
    """Return a file, or the files of a folder or glob, without those that Spark and others hide."""
    if path.is_dir():
        found = [each for each in path.rglob("*") if each.suffix.lower() in (*_PARQUET, ".csv")]
        found = [each for each in found if not any(p.startswith((".", "_")) for p in each.relative_to(path).parts)]
    elif glob.has_magic(str(path)) and not path.exists():
        found = [Path(each) for each in glob.glob(str(path), recursive=True)]
    else:
        return [path]
    if not found:
        raise ConfigError(f"{key} = {path}: has no Parquet or CSV files")
    return sorted(found)


def _parts(file: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    if file.suffix.lower() in _PARQUET:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_ROWS):
                yield pa.Table.from_batches([batch])
        return
    with _open_csv(file, types) as reader:
        empty = [field.name for field in reader.schema if pa.types.is_null(field.type)]  # so far
    with _open_csv(file, {**dict.fromkeys(empty, pa.string()), **types}) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _open_csv(file: Path, types: Mapping[str, pa.DataType]) -> csv.CSVStreamingReader:
    """Open a CSV file in which only empty fields are null, as for preparation."""
    return csv.open_csv(
        file, convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    )
