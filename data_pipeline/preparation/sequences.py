"""``rows`` -> a row a history, in order of time, to be continued by its next item: validation and test leave one out.

A list of the prepared data is what comes before an item (its input) and the item (its target). Models of lists learn to
predict every item of a training list, so that a history is trained whole, not once for each of its items.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ITEM, SPLIT, USER
from data_pipeline.preparation.encode import encode_column, id_table
from data_pipeline.preparation.lists import report_lists
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.split import newest_first, seeded_hash
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.preparation.writer import BATCH_ROWS, write_split
from data_pipeline.schema import INPUT, LIST, SPLITS, TARGET, Categorical, Schema, Split


def write_sequences(workspace: Workspace, folder: Path, name: str, longest: int, row_group_size: int) -> Schema:
    """Encode ``rows``, which are split by leave one out, and write the lists of every split.

    - validation and test: the row's item as target, and up to `longest` items before it as input;
    - train: a user's training rows, from the last, in pieces of up to ``longest + 1`` items. A piece begins with the
      last item of the piece before it, so that every item but the user's first is predicted once. Shuffled once by a
      seeded hash; the other splits are sorted by user.

    Args:
        folder: of the prepared data set.
        name: of the data set.
        longest: input at most.
        row_group_size: rows of a Parquet row group.

    Raises:
        DataError: a split is empty.
    """
    workspace.query(f"""
        CREATE OR REPLACE TABLE rows AS
        SELECT {USER} AS {LIST}, {ITEM}, {SPLIT},
            count(*) OVER (PARTITION BY {USER}) + 1
                - row_number() OVER (PARTITION BY {USER} ORDER BY {newest_first(workspace.seed)}) AS place
        FROM rows""")
    (folder / "ids").mkdir()
    user, item = (encode_column(workspace, *what, folder) for what in ((LIST, "user"), (ITEM, "item")))
    workspace.query(f"""
        CREATE TABLE encoded AS
        SELECT {id_table(LIST)}.id AS {LIST}, {id_table(ITEM)}.id AS item, {SPLIT}, place
        FROM rows JOIN {id_table(LIST)} ON {id_table(LIST)}.original_id = rows.{LIST}
            JOIN {id_table(ITEM)} ON {id_table(ITEM)}.original_id = rows.{ITEM}""")
    splits = {}
    for number, split in enumerate(SPLITS):
        lists = _pieces(workspace, longest) if number == 0 else _left_out(workspace, number, longest)
        [(count,)] = lists.count("*").fetchall()
        if count == 0:
            raise DataError(_why_empty(workspace, split))
        workspace.on_progress(f"writing {split}: {count:,} lists")
        files = write_split(lists.to_arrow_reader(BATCH_ROWS), count, folder / split, row_group_size)
        splits[split] = Split(rows=count, files=files)
    [(most,)] = workspace.query("SELECT max(place) FROM encoded")
    halves = (
        Categorical(half, item.num_ids, item.num_seen, "item", sequence=True, table=ITEM, max_length=length)
        for half, length in ((INPUT, min(longest, most - 1)), (TARGET, 1))
    )
    return Schema(name=name, label=None, categorical=(user, *halves), dense=(), splits=splits)


def _pieces(workspace: Workspace, longest: int) -> duckdb.DuckDBPyRelation:
    """Of training, in the order in which they are written. ``after`` counts the items of the user after an item."""
    return workspace.connection.sql(f"""
        SELECT {LIST}, items[:len(items) - 1] AS {INPUT}, items[len(items):] AS {TARGET}
        FROM (
            SELECT {LIST}, {LIST} || ':' || piece AS piece, list(item ORDER BY place) AS items
            FROM (
                SELECT *, unnest(CASE WHEN after > 0 AND after % {longest} = 0
                    THEN [after // {longest}, after // {longest} - 1] ELSE [after // {longest}] END) AS piece
                FROM (
                    SELECT *, row_number() OVER (PARTITION BY {LIST} ORDER BY place DESC) - 1 AS after
                    FROM encoded WHERE {SPLIT} = 0
                )
            ) GROUP BY ALL
        ) WHERE len(items) > 1
        ORDER BY {seeded_hash(workspace.seed, "shuffle", "piece")}, piece""")


def _left_out(workspace: Workspace, split: int, longest: int) -> duckdb.DuckDBPyRelation:
    """Of validation or test, in the order in which they are written."""
    return workspace.connection.sql(f"""
        SELECT {LIST}, items[greatest(1, len(items) - {longest}):len(items) - 1] AS {INPUT},
            items[len(items):] AS {TARGET}
        FROM (
            SELECT {LIST}, list(item ORDER BY place) AS items, max({SPLIT}) AS last
            FROM encoded WHERE {SPLIT} <= {split} GROUP BY {LIST}
        ) WHERE last = {split}
        ORDER BY {LIST}""")


def _why_empty(workspace: Workspace, split: str) -> str:
    [(longest, users)] = workspace.query(f"SELECT max(place), count(DISTINCT {LIST}) FROM encoded")
    needs = {"train": 4, "validation": 3, "test": 2}[split]
    return (
        f"the {split} split is empty: it needs a user of at least {needs} rows (test and validation take one each,"
        f" and a sequence has at least two), and the {users} users have {longest} at most. Give longer histories,"
        " or set data.sequences=null"
    )


def report_sequences(
    workspace: Workspace, schema: Schema, source: str, dropped: dict[str, int], published: dict[str, int]
) -> Report:
    """The account of a data set of histories: its interactions are all rows, its lists those of all splits."""
    rows_alone = {name: count for name, count in published.items() if name != "samples"}
    report = report_lists(workspace, schema, source, dropped, rows_alone)
    users = schema.entity("user").num_ids
    density = report.interactions / (users * report.items)
    return replace(report, split="leave_one_out", users=users, density=density)
