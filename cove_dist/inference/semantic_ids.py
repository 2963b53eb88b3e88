"""Semantic ids from exported codes: a tuple of tokens for every id, for models that generate ids token by token.

A tuple of codes may belong to several ids. With a disambiguating token every tuple is unique: the number of the id
among those that share its codes, in the order of the export, as in Rajput et al., "Recommender Systems with Generative
Retrieval" (NeurIPS 2023), section 3.1. A residual cascade (``quantizer.cascade=residual``) distinguishes far more ids
than the paper's, in which a level-1 code decides all others.

Layout of ``RUN/semantic_ids/<entity>/``::

    semantic_ids.parquet   original_id, tokens (list of string: "<a_12>", "<b_5>", …; a letter a level)
    index.json             one object: original id (as a string) -> tokens
    vocabulary.json        one object: token -> its number, from 0
    collisions.json        ids, distinct tuples of codes, share of ids with a unique tuple, largest bucket

Ids that training did not see have no codes, and no semantic id.
"""

from __future__ import annotations

import json
import logging
import string
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow.parquet as pq

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.config import settings
from cove_dist.config.composition import load_settings
from cove_dist.errors import ConfigError
from cove_dist.faults.outputs import output_folder
from cove_dist.runs import CHECKPOINTS, CODES_FILE, read_json
from cove_dist.tasks.configuration import load_saved_run
from cove_dist.types import Folder, Text
from data_pipeline.folders import replaced_folder
from data_pipeline.json_files import write_json

logger = logging.getLogger(__name__)

_MEMORY = "2GB"  # of sorts and groups over all ids; what is beyond goes to files next to the output

PARQUET_FILE, INDEX_FILE = "semantic_ids.parquet", "index.json"
VOCABULARY_FILE, COLLISIONS_FILE = "vocabulary.json", "collisions.json"


@settings
class SemanticIdConfig:
    """Settings of `write_semantic_ids`."""

    run: Text
    entity: Literal["item", "user"]
    disambiguate: bool
    output: Folder | None


@dataclass(frozen=True)
class Collisions:
    """How well tuples of codes tell ids apart.

    Attributes:
        ids: Number of ids with codes.
        tuples: Number of distinct tuples of codes.
        unique_share: Share of the ids whose tuple no other id has.
        largest_bucket: Most ids with one tuple.
        levels: Codes in use at each level.
    """

    ids: int
    tuples: int
    unique_share: float
    largest_bucket: int
    levels: list[int]


def write_semantic_ids(overrides: Sequence[str]) -> tuple[Path, Collisions]:
    """Write the semantic ids of a run's exported codes, in at most 2 GB of memory and files that do not stay.

    Returns:
        The folder, which is complete or absent, and the collisions.

    Raises:
        ConfigError: The run has no exported codes of this entity, or the folder holds other things.
    """
    request = load_settings(SemanticIdConfig, "semantic_ids", overrides)
    default = Path(request.run) / "semantic_ids" / request.entity
    folder = output_folder(default, request.output, COLLISIONS_FILE, "semantic ids")
    parts = sorted((Path(request.run) / "codes" / request.entity).glob("part-*.parquet"))
    if not parts:
        raise ConfigError(
            f"run = {request.run}: no exported codes of {request.entity}s; write them by cove export run={request.run}"
        )
    _warn_of_older_codes(Path(request.run))
    with (
        replaced_folder(folder) as partial,
        tempfile.TemporaryDirectory(dir=partial.parent, prefix=".semantic_ids-") as scratch,
        duckdb.connect() as connection,
    ):
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute("SET temp_directory = ?", [scratch])
        collisions = _write(connection, parts, partial, request.disambiguate)
    return folder, collisions


def _warn_of_older_codes(run: Path) -> None:
    """Warn if the codes were exported from a checkpoint that is neither the newest nor the best."""
    exported, files = read_json(run / "codes" / CODES_FILE).get("checkpoint"), CheckpointFolder(run / CHECKPOINTS)
    if exported is None or not files.steps():
        return
    config, _ = load_saved_run(str(run))
    current = {"newest": files.newest(), "best": files.best(config.trainer.early_stopping.metric)}
    names = {which: path.name for which, path in current.items() if path is not None}
    if exported not in names.values():
        logger.warning(
            "%s: codes of %s, but the run has %s; export them again: cove export run=%s",
            run / "codes", exported, ", ".join(f"{name} ({which})" for which, name in names.items()), run,
        )  # fmt: skip


def _write(connection: duckdb.DuckDBPyConnection, parts: list[Path], folder: Path, disambiguate: bool) -> Collisions:
    codes = [name for name in pq.read_schema(parts[0]).names if name.startswith("code_")]
    tuple_, letters = ", ".join(codes), string.ascii_lowercase
    source = connection.read_parquet([str(part) for part in parts], file_row_number=True, filename=True)
    source.filter("code_1 IS NOT NULL").create_view("coded")
    connection.execute(f"CREATE TABLE tuples AS SELECT {tuple_}, count(*) AS ids FROM coded GROUP BY {tuple_}")
    in_use = ", ".join(f"count(DISTINCT {code})" for code in codes)
    unique = "coalesce(sum(ids) FILTER (ids = 1), 0)"
    row = connection.execute(
        f"SELECT coalesce(sum(ids), 0), count(*), {unique}, coalesce(max(ids), 0), {in_use} FROM tuples"
    ).fetchone()
    assert row is not None
    ids, tuples, single, largest, *levels = map(int, row)
    tokens = [f"'<{letters[level]}_' || {code} || '>'" for level, code in enumerate(codes)]
    if disambiguate:
        number = f"row_number() OVER (PARTITION BY {tuple_} ORDER BY filename, file_row_number) - 1"
        tokens.append(f"'<{letters[len(codes)]}_' || ({number}) || '>'")
    connection.execute(
        f"COPY (SELECT original_id, [{', '.join(tokens)}] AS tokens FROM coded ORDER BY filename, file_row_number)"
        f" TO '{_quoted(folder / PARQUET_FILE)}' (FORMAT parquet, COMPRESSION zstd)"
    )
    _write_index(folder)
    sizes = connection.execute(f"SELECT {', '.join(f'max({code})' for code in codes)} FROM tuples").fetchone() or ()
    counts = [0 if size is None else int(size) + 1 for size in sizes] + ([largest] if disambiguate else [])
    names = [f"<{letters[level]}_{code}>" for level, count in enumerate(counts) for code in range(count)]
    write_json(folder / VOCABULARY_FILE, {name: number for number, name in enumerate(names)})
    collisions = Collisions(ids, tuples, single / ids if ids else 0.0, largest, levels)
    write_json(folder / COLLISIONS_FILE, asdict(collisions))
    return collisions


def _write_index(folder: Path) -> None:
    """Write ``index.json`` from the Parquet file, a batch of rows at a time."""
    with (folder / INDEX_FILE).open("w") as file:
        separator = "{\n"
        for batch in pq.ParquetFile(folder / PARQUET_FILE).iter_batches():
            for original_id, tokens in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                file.write(f"{separator}{json.dumps(str(original_id))}: {json.dumps(tokens)}")
                separator = ",\n"
        file.write("{}\n" if separator == "{\n" else "\n}\n")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
