"""Scores of new rows, from files or tables with the columns of training, in original ids."""

from __future__ import annotations

import logging
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
from cove_dist.inference.row_files import as_table, read_rows
from cove_dist.inference.session import Session, UnknownPair
from cove_dist.types import TableFile, Text
from data_pipeline.files import replaced_file
from data_pipeline.id_tables import combined
from data_pipeline.schema import Entity, Schema

logger = logging.getLogger(__name__)

SCORE = "score"


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
    Ids that are whole numbers are int64, where all ids of the files are (see `read_rows`). Users and items may be named
    otherwise in the files.
    """
    schema = session.schema
    named = {schema.entity(entity).name: name for entity, name in entity_columns(schema, user, item).items()}
    types = {column.name: pa.float64() for column in schema.dense}
    for column in schema.categorical:
        if column.bins is not None:
            types[column.name] = pa.float64()
        else:
            types[column.name] = pa.string() if column.sequence else session.id_tables.of(column).type_in_files
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
