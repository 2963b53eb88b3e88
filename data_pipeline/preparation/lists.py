"""``valid`` -> the table ``entries``: lists of items, filtered until nothing changes, split whole, and cut in halves.

The rules are those of the paper's section 4.1, which takes them from Q. Liu et al., "FANS: Fast Non-Autoregressive
Sequence Generation for Item List Continuation" (WWW 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ITEM, ROW, SPLIT, USER
from data_pipeline.preparation.encode import encode_column, id_table
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.split import seeded_hash
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.preparation.writer import BATCH_ROWS, write_split
from data_pipeline.schema import INPUT, LIST, OWNER, SPLITS, TARGET, Categorical, Schema, Split


@dataclass(frozen=True)
class ListRules:
    """What stays of the raw lists.

    Attributes:
        min_length, max_length: of a list. Longer ones are cut at their end, shorter ones left out.
        min_occurrences: of an item over all lists, repeats counted.
    """

    min_length: int
    max_length: int
    min_occurrences: int


def filter_lists(workspace: Workspace, rules: ListRules) -> dict[str, int]:
    """Create ``entries`` (list_id, item_id, place) and count the raw rows left out, by reason.

    Repeated until nothing changes: drop rare items, cut long lists, drop short lists.

    Raises:
        DataError: no list is left.
    """
    workspace.query(f"CREATE TABLE entries AS SELECT {USER} AS {LIST}, {ITEM}, {ROW} AS place FROM valid")
    frequent = f"WHERE {ITEM} IN (SELECT {ITEM} FROM entries GROUP BY ALL HAVING count(*) >= {rules.min_occurrences})"
    within = f"QUALIFY row_number() OVER (PARTITION BY {LIST} ORDER BY place) <= {rules.max_length}"
    long_enough = f"QUALIFY count(*) OVER (PARTITION BY {LIST}) >= {rules.min_length}"
    steps = {
        f"of items in fewer than {rules.min_occurrences} places": frequent,
        f"beyond {rules.max_length} items of a list": within,
        f"of lists of fewer than {rules.min_length} items": long_enough,
    }
    dropped, changed, before, rounds = dict.fromkeys(steps, 0), True, _count(workspace), 0
    workspace.on_progress(f"filtering {before:,} entries of lists")
    while changed:
        start, rounds = before, rounds + 1
        for reason, kept in steps.items():
            workspace.query(f"CREATE OR REPLACE TABLE entries AS SELECT * FROM entries {kept}")
            after = _count(workspace)
            dropped[reason] += before - after
            before = after
        changed = before < start
    workspace.on_progress(f"{before:,} entries of lists are left after {rounds} rounds")
    if before == 0:
        raise DataError(
            f"no list is left of {sum(dropped.values()):,} rows: {dropped}. Lower data.min_occurrences or"
            " data.min_length, or give more lists"
        )
    return {reason: count for reason, count in dropped.items() if count}


def _count(workspace: Workspace) -> int:
    [(rows,)] = workspace.query("SELECT count(*) FROM entries")
    return rows


def split_lists(workspace: Workspace, ratios: tuple[int, int, int]) -> dict[str, int]:
    """Create ``rows``, the entries with the split of their list, and count the lists of each split.

    Lists are ordered by a seeded hash; with ratios a:b:c the first ``floor(n a / (a+b+c))`` of n are of train, those up
    to ``floor(n (a+b) / (a+b+c))`` of validation.

    Raises:
        DataError: a split is empty.
    """
    total, train, validation = sum(ratios), ratios[0], ratios[0] + ratios[1]
    workspace.query(f"""
        CREATE TABLE rows AS
        SELECT entries.*, {SPLIT} FROM entries JOIN (
            SELECT {LIST}, CASE
                WHEN position < n * {train} // {total} THEN 0
                WHEN position < n * {validation} // {total} THEN 1
                ELSE 2 END::TINYINT AS {SPLIT}
            FROM (
                SELECT {LIST}, count(*) OVER () AS n,
                    row_number() OVER (ORDER BY {seeded_hash(workspace.seed, "split", LIST)}, {LIST}) - 1 AS position
                FROM (SELECT DISTINCT {LIST} FROM entries)
            )
        ) USING ({LIST})""")
    counts = dict(workspace.query(f"SELECT {SPLIT}, count(DISTINCT {LIST}) FROM rows GROUP BY {SPLIT}"))
    lists = {name: counts.get(number, 0) for number, name in enumerate(SPLITS)}
    for name, count in lists.items():
        if count == 0:
            raise DataError(
                f"the {name} split is empty: {sum(lists.values())} lists, data.ratios={list(ratios)}."
                " Give more lists, other ratios, or lower data.min_length and data.min_occurrences"
            )
    return lists


def write_lists(
    workspace: Workspace, folder: Path, name: str, lists: dict[str, int], row_group_size: int, *, owners: bool
) -> Schema:
    """Encode ``rows`` and write a row a list: its first half (rounded down) is its input, the rest its target.

    Training lists are shuffled once by a seeded hash; validation and test are sorted by list id.

    Args:
        folder: of the prepared data set.
        name: of the data set.
        lists: of each split.
        row_group_size: rows of a Parquet row group.
        owners: whether the table ``owners`` (list_id, owner_id) tells who made the lists.
    """
    if owners:
        # as text on both sides: ids of lists are text where not all of them are whole numbers
        workspace.query(f"""
            CREATE OR REPLACE TABLE rows AS
            SELECT rows.*, owners.{OWNER}
            FROM rows LEFT JOIN owners ON owners.{LIST}::VARCHAR = rows.{LIST}::VARCHAR""")
    (folder / "ids").mkdir()
    columns = [encode_column(workspace, LIST, "user", folder)]
    columns += [encode_column(workspace, OWNER, "feature", folder)] if owners else []
    item = encode_column(workspace, ITEM, "item", folder)
    [(longest,)] = workspace.query(f"SELECT max(n) FROM (SELECT count(*) AS n FROM rows GROUP BY {LIST})")
    for half, length in ((INPUT, longest // 2), (TARGET, longest - longest // 2)):
        columns.append(
            Categorical(half, item.num_ids, item.num_seen, "item", sequence=True, table=ITEM, max_length=length)
        )
    splits = {}
    for number, split in enumerate(SPLITS):
        workspace.on_progress(f"writing {split}: {lists[split]:,} lists")
        halves = _halves(workspace, number, owners).to_arrow_reader(BATCH_ROWS)
        files = write_split(halves, lists[split], folder / split, row_group_size)
        splits[split] = Split(rows=lists[split], files=files)
    return Schema(name=name, label=None, categorical=tuple(columns), dense=(), splits=splits)


def _halves(workspace: Workspace, split: int, owners: bool) -> duckdb.DuckDBPyRelation:
    """The lists of a split with encoded ids, in the order in which they are written."""
    owner, joined = "", ""
    if owners:
        owner = f"any_value({id_table(OWNER)}.id) AS {OWNER},"
        joined = f"JOIN {id_table(OWNER)} ON {id_table(OWNER)}.original_id IS NOT DISTINCT FROM rows.{OWNER}"
    order = f"{seeded_hash(workspace.seed, 'shuffle', LIST)}, {LIST}" if split == 0 else LIST
    return workspace.connection.sql(f"""
        SELECT {LIST}, {f"{OWNER}," if owners else ""} items[:n // 2] AS {INPUT}, items[n // 2 + 1:] AS {TARGET}
        FROM (
            SELECT {id_table(LIST)}.id AS {LIST}, {owner} count(*) AS n,
                list({id_table(ITEM)}.id ORDER BY place) AS items
            FROM rows
            JOIN {id_table(LIST)} ON {id_table(LIST)}.original_id = rows.{LIST}
            JOIN {id_table(ITEM)} ON {id_table(ITEM)}.original_id = rows.{ITEM} {joined}
            WHERE {SPLIT} = {split} GROUP BY {id_table(LIST)}.id
        ) ORDER BY {order}""")


def report_lists(
    workspace: Workspace, schema: Schema, source: str, dropped: dict[str, int], published: dict[str, int]
) -> Report:
    """The account of a data set of lists: its interactions are the entries of all lists."""
    [(interactions, pairs)] = workspace.query(f"SELECT count(*), count(DISTINCT ({LIST}, {ITEM})) FROM rows")
    rows = {name: split.rows for name, split in schema.splits.items()}
    lists, items = sum(rows.values()), schema.entity("item").num_ids
    owners = [column.num_ids for column in schema.categorical if column.name == OWNER]
    return Report(
        name=schema.name,
        source=source,
        seed=workspace.seed,
        split="random",
        rows_read=interactions + sum(dropped.values()),
        rows_dropped=dropped,
        duplicate_pairs=interactions - pairs,
        rows=rows,
        users=sum(owners),
        items=items,
        interactions=interactions,
        samples=lists,
        density=interactions / (lists * items),
        published=published,
        lists=lists,
    )
