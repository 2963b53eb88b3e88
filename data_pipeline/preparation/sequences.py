"""Raw interactions -> sequences for next-item prediction: a user's interaction history in order of time.

A prepared row has the items before an item (its input) and the item (its target). Sequential models learn to predict
every item of a training sequence, so a history is a few training rows, not one row per item.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from data_pipeline.errors import DataError
from data_pipeline.parquet_files import BATCH_ROWS
from data_pipeline.preparation.categories import write_categories
from data_pipeline.preparation.columns import ITEM, SPLIT, USER
from data_pipeline.preparation.encode import count_present, encode_column, encoded, rows_with_ids
from data_pipeline.preparation.interactions import InteractionRules, split_interactions
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.sequence_rows import report_sequences, sequence_columns
from data_pipeline.preparation.split import newest_first, seeded_hash
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.preparation.writer import write_split
from data_pipeline.schema import INPUT, SPLITS, TARGET, Schema, Split


def prepare_sequences(
    workspace: Workspace, source: Source, rules: InteractionRules, longest: int, folder: Path, name: str
) -> tuple[Schema, Report]:
    """Split interactions by leave-one-out and write them as sequences.

    Args:
        workspace: Workspace that holds ``raw``.
        source: Source of ``raw``.
        rules: Rules by which rows are checked, split and written.
        longest: The greatest number of items of an input.
        folder: The prepared folder.
        name: Name of the data set.
    """
    counts = split_interactions(workspace, source, rules)
    schema = write_sequences(workspace, folder, name, longest, rules.row_group_size)
    write_categories(workspace, {ITEM: source.categories[ITEM]} if ITEM in source.categories else {}, folder)
    report = report_sequences(
        workspace,
        schema,
        source,
        counts.dropped,
        {count: number for count, number in rules.published.items() if count != "samples"},
        split="leave_one_out",
        users=count_present(workspace, USER),
        ties=counts.ties,
    )
    return schema, report


def write_sequences(workspace: Workspace, folder: Path, name: str, longest: int, row_group_size: int) -> Schema:
    """Encode ``rows``, which are split by leave-one-out, and write the sequences of every split.

    - Validation and test: the row's item as target, and up to ``longest`` items before it as input.
    - Train: a user's training rows, from the last, in pieces of up to ``longest + 1`` items. A piece begins with the
      last item of the piece before it, so that every item but the user's first is predicted once. Rows are shuffled
      once by a seeded hash; the other splits are sorted by user.

    Args:
        workspace: Workspace that holds ``rows``.
        folder: The prepared folder.
        name: Name of the data set.
        longest: The greatest number of items of an input.
        row_group_size: Rows of a Parquet row group.

    Raises:
        DataError: A split is empty.
    """
    workspace.query(f"""
        CREATE OR REPLACE TABLE rows AS
        SELECT {USER}, {ITEM}, {SPLIT},
            count(*) OVER (PARTITION BY {USER}) + 1
                - row_number() OVER (PARTITION BY {USER} ORDER BY {newest_first(workspace.seed)}) AS position
        FROM rows""")
    user, item = encode_column(workspace, USER, "user", folder), encode_column(workspace, ITEM, "item", folder)
    workspace.query(f"""
        CREATE TABLE encoded AS
        SELECT {encoded(USER)} AS {USER}, {encoded(ITEM)} AS item, {SPLIT}, position
        FROM {rows_with_ids(USER, ITEM)}""")
    splits = {}
    for number, split in enumerate(SPLITS):
        sequences = _pieces(workspace, longest) if number == 0 else _left_out(workspace, number, longest)
        [(count,)] = sequences.count("*").fetchall()
        if count == 0:
            raise DataError(_why_empty(workspace, split))
        workspace.on_progress(f"writing {split}: {count:,} sequences")
        files = write_split(sequences.to_arrow_reader(BATCH_ROWS), count, folder / split, row_group_size)
        splits[split] = Split(rows=count, files=files)
    [(most,)] = workspace.query("SELECT max(position) FROM encoded")
    columns = (user, *sequence_columns(item, min(longest, most - 1), 1))
    return Schema(name=name, label=None, categorical=columns, dense=(), splits=splits)


def _pieces(workspace: Workspace, longest: int) -> duckdb.DuckDBPyRelation:
    """Return the training sequences in the order in which they are written.

    ``after`` counts the items that the user has after an item.
    """
    return workspace.connection.sql(f"""
        SELECT {USER}, items[:len(items) - 1] AS {INPUT}, items[len(items):] AS {TARGET}
        FROM (
            SELECT {USER}, {USER} || ':' || piece AS piece, list(item ORDER BY position) AS items
            FROM (
                SELECT *, unnest(CASE WHEN after > 0 AND after % {longest} = 0
                    THEN [after // {longest}, after // {longest} - 1] ELSE [after // {longest}] END) AS piece
                FROM (
                    SELECT *, row_number() OVER (PARTITION BY {USER} ORDER BY position DESC) - 1 AS after
                    FROM encoded WHERE {SPLIT} = 0
                )
            ) GROUP BY ALL
        ) WHERE len(items) > 1
        ORDER BY {seeded_hash(workspace.seed, "shuffle", "piece")}, piece""")


def _left_out(workspace: Workspace, split: int, longest: int) -> duckdb.DuckDBPyRelation:
    """Return the sequences of validation or test in the order in which they are written."""
    return workspace.connection.sql(f"""
        SELECT {USER}, items[greatest(1, len(items) - {longest}):len(items) - 1] AS {INPUT},
            items[len(items):] AS {TARGET}
        FROM (
            SELECT {USER}, list(item ORDER BY position) AS items, max({SPLIT}) AS last
            FROM encoded WHERE {SPLIT} <= {split} GROUP BY {USER}
        ) WHERE last = {split}
        ORDER BY {USER}""")


def _why_empty(workspace: Workspace, split: str) -> str:
    [(longest, users)] = workspace.query(f"SELECT max(position), count(DISTINCT {USER}) FROM encoded")
    needs = {"train": 4, "validation": 3, "test": 2}[split]
    return (
        f"the {split} split is empty: it needs a user with at least {needs} rows (test and validation take one each,"
        f" and a sequence has at least two), and the {users} users have {longest} at most. Give longer histories,"
        " or set data.sequences=null"
    )
