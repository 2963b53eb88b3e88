"""Raw entries of playlists -> sequences: playlists filtered until nothing changes, split whole, and cut in halves.

The rules are those of the paper's section 4.1, which takes them from Q. Liu et al., "FANS: Fast Non-Autoregressive
Sequence Generation for Item List Continuation" (WWW 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from data_pipeline.errors import DataError
from data_pipeline.parquet_files import BATCH_ROWS
from data_pipeline.preparation.columns import ITEM, ROW, SPLIT, USER
from data_pipeline.preparation.encode import encode_column, encoded, rows_with_ids
from data_pipeline.preparation.sequence_rows import sequence_columns
from data_pipeline.preparation.split import seeded_hash
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.preparation.writer import write_split
from data_pipeline.schema import INPUT, OWNER, PLAYLIST, SPLITS, TARGET, Schema, Split


@dataclass(frozen=True)
class PlaylistRules:
    """Which entries of the raw playlists are kept.

    Attributes:
        min_length: Least number of entries of a playlist; shorter ones are left out.
        max_length: Greatest number of entries of a playlist; longer ones are cut at their end.
        min_occurrences: Least number of entries of an item over all playlists, repeats counted.
    """

    min_length: int
    max_length: int
    min_occurrences: int


def filter_playlists(workspace: Workspace, rules: PlaylistRules) -> dict[str, int]:
    """Create ``entries`` (playlist_id, item_id, position) from ``valid``, and count the raw rows left out, by reason.

    Three steps are repeated until nothing changes: drop rare items, cut long playlists, drop short playlists.

    Raises:
        DataError: No playlist is left.
    """
    workspace.query(f"CREATE TABLE entries AS SELECT {USER} AS {PLAYLIST}, {ITEM}, {ROW} AS position FROM valid")
    frequent = f"WHERE {ITEM} IN (SELECT {ITEM} FROM entries GROUP BY ALL HAVING count(*) >= {rules.min_occurrences})"
    within = f"QUALIFY row_number() OVER (PARTITION BY {PLAYLIST} ORDER BY position) <= {rules.max_length}"
    long_enough = f"QUALIFY count(*) OVER (PARTITION BY {PLAYLIST}) >= {rules.min_length}"
    steps = {
        f"items with fewer than {rules.min_occurrences} entries": frequent,
        f"entries beyond the first {rules.max_length} of a playlist": within,
        f"playlists of fewer than {rules.min_length} items": long_enough,
    }
    dropped, changed, before, rounds = dict.fromkeys(steps, 0), True, _count(workspace), 0
    workspace.on_progress(f"filtering {before:,} entries of playlists")
    while changed:
        start, rounds = before, rounds + 1
        for reason, kept in steps.items():
            workspace.query(f"CREATE OR REPLACE TABLE entries AS SELECT * FROM entries {kept}")
            after = _count(workspace)
            dropped[reason] += before - after
            before = after
        changed = before < start
    workspace.on_progress(f"kept {before:,} entries of playlists after {rounds} rounds")
    if before == 0:
        raise DataError(
            f"no playlist is left of {sum(dropped.values()):,} rows: {dropped}. Lower data.min_occurrences or"
            " data.min_length, or give more playlists"
        )
    return {reason: count for reason, count in dropped.items() if count}


def _count(workspace: Workspace) -> int:
    [(rows,)] = workspace.query("SELECT count(*) FROM entries")
    return rows


def split_playlists(workspace: Workspace, ratios: tuple[int, int, int]) -> dict[str, int]:
    """Create ``rows``, the entries with the split of their playlist, and count the playlists of each split.

    Playlists are ordered by a seeded hash; with ratios a:b:c the first ``floor(n a / (a+b+c))`` of n are for training,
    those up to ``floor(n (a+b) / (a+b+c))`` for validation, and the others for test.

    Raises:
        DataError: A split is empty.
    """
    total, train, validation = sum(ratios), ratios[0], ratios[0] + ratios[1]
    workspace.query(f"""
        CREATE TABLE rows AS
        SELECT entries.*, {SPLIT} FROM entries JOIN (
            SELECT {PLAYLIST}, CASE
                WHEN number < n * {train} // {total} THEN 0
                WHEN number < n * {validation} // {total} THEN 1
                ELSE 2 END::TINYINT AS {SPLIT}
            FROM (
                SELECT {PLAYLIST}, count(*) OVER () AS n, row_number() OVER (
                    ORDER BY {seeded_hash(workspace.seed, "split", PLAYLIST)}, {PLAYLIST}) - 1 AS number
                FROM (SELECT DISTINCT {PLAYLIST} FROM entries)
            )
        ) USING ({PLAYLIST})""")
    found = dict(workspace.query(f"SELECT {SPLIT}, count(DISTINCT {PLAYLIST}) FROM rows GROUP BY {SPLIT}"))
    counts = {name: found.get(number, 0) for number, name in enumerate(SPLITS)}
    for name, count in counts.items():
        if count == 0:
            raise DataError(
                f"the {name} split is empty: {sum(counts.values())} playlists, data.ratios={list(ratios)}."
                " Give more playlists, other ratios, or lower data.min_length and data.min_occurrences"
            )
    return counts


def write_playlists(
    workspace: Workspace, folder: Path, name: str, counts: dict[str, int], row_group_size: int, *, owners: bool
) -> Schema:
    """Encode ``rows`` and write a row per playlist: the first half (rounded down) is its input, the rest its target.

    Training rows are shuffled once by a seeded hash; validation and test are sorted by playlist id.

    Args:
        workspace: Workspace that holds ``rows``.
        folder: The prepared folder.
        name: Name of the data set.
        counts: Playlists of each split.
        row_group_size: Rows of a Parquet row group.
        owners: Whether the table ``owners`` (playlist_id, owner_id) has the users who made the playlists.
    """
    if owners:
        # as text on both sides: playlist ids are text where not all of them are whole numbers
        workspace.query(f"""
            CREATE OR REPLACE TABLE rows AS
            SELECT rows.*, owners.{OWNER}
            FROM rows LEFT JOIN owners ON owners.{PLAYLIST}::VARCHAR = rows.{PLAYLIST}::VARCHAR""")
    columns = [encode_column(workspace, PLAYLIST, "user", folder)]
    columns += [encode_column(workspace, OWNER, "feature", folder)] if owners else []
    item = encode_column(workspace, ITEM, "item", folder)
    [(longest,)] = workspace.query(f"SELECT max(n) FROM (SELECT count(*) AS n FROM rows GROUP BY {PLAYLIST})")
    columns += sequence_columns(item, longest // 2, longest - longest // 2)
    splits = {}
    for number, split in enumerate(SPLITS):
        workspace.on_progress(f"writing {split}: {counts[split]:,} playlists")
        halves = _halves(workspace, number, owners).to_arrow_reader(BATCH_ROWS)
        files = write_split(halves, counts[split], folder / split, row_group_size)
        splits[split] = Split(rows=counts[split], files=files)
    return Schema(name=name, label=None, categorical=tuple(columns), dense=(), splits=splits)


def _halves(workspace: Workspace, split: int, owners: bool) -> duckdb.DuckDBPyRelation:
    """Return the playlists of a split with encoded ids, in the order in which they are written."""
    known = [OWNER] if owners else []
    owner = "".join(f"any_value({encoded(column)}) AS {column}, " for column in known)
    order = f"{seeded_hash(workspace.seed, 'shuffle', PLAYLIST)}, {PLAYLIST}" if split == 0 else PLAYLIST
    return workspace.connection.sql(f"""
        SELECT {", ".join([PLAYLIST, *known])}, items[:n // 2] AS {INPUT}, items[n // 2 + 1:] AS {TARGET}
        FROM (
            SELECT {encoded(PLAYLIST)} AS {PLAYLIST}, {owner} count(*) AS n,
                list({encoded(ITEM)} ORDER BY position) AS items
            FROM {rows_with_ids(PLAYLIST, ITEM, *known)}
            WHERE {SPLIT} = {split} GROUP BY {encoded(PLAYLIST)}
        ) ORDER BY {order}""")
