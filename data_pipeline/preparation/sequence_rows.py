"""What data sets have in common whose prepared rows are sequences: an input and a target, both lists of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from data_pipeline.preparation.columns import ITEM
from data_pipeline.preparation.encode import count_present
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import INPUT, TARGET, Categorical, Schema


def sequence_columns(item: Categorical, longest_input: int, longest_target: int) -> tuple[Categorical, ...]:
    """Return the columns `INPUT` and `TARGET`, whose ids are those of ``item``."""
    return tuple(
        replace(item, name=name, sequence=True, table=item.name, max_length=length)
        for name, length in ((INPUT, longest_input), (TARGET, longest_target))
    )


def report_sequences(
    workspace: Workspace,
    schema: Schema,
    source: Source,
    dropped: dict[str, int],
    published: Mapping[str, int],
    *,
    split: str,
    users: int,
    ties: Mapping[str, int] | None = None,
) -> Report:
    """Report data whose rows are sequences: the interactions are the rows of the table ``rows``.

    Args:
        workspace: Workspace that holds ``rows``.
        schema: Schema of the prepared folder.
        source: Source of ``raw``.
        dropped: Raw rows left out, by reason.
        published: Counts that the publisher states, by name.
        split: The rule by which rows were split.
        users: Users of histories, or owners of playlists.
        ties: See `data_pipeline.preparation.ties`.
    """
    row = schema.entity("user")  # a row of the user-item matrix: a user, or a playlist
    [(interactions, pairs)] = workspace.query(f"SELECT count(*), count(DISTINCT ({row.name}, {ITEM})) FROM rows")
    rows = {name: each.rows for name, each in schema.splits.items()}
    sequences, items = sum(rows.values()), count_present(workspace, ITEM)
    return Report(
        name=schema.name,
        source=source.description,
        seed=workspace.seed,
        split=split,
        rows_read=interactions + sum(dropped.values()),
        rows_dropped=dropped,
        duplicate_pairs=interactions - pairs,
        rows=rows,
        users=users,
        items=items,
        interactions=interactions,
        samples=sequences,
        density=pairs / (count_present(workspace, row.name) * items),
        published=dict(published),
        sequences=sequences,
        ties=dict(ties or {}),
    )
