"""``valid`` -> ``valid`` of implicit feedback: positives, each pair once, of users and items with enough rows."""

from __future__ import annotations

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ITEM, LABEL, ROW, TIME, USER
from data_pipeline.preparation.workspace import Workspace


def keep_positives(workspace: Workspace, core: int | None, timed: bool) -> dict[str, int]:
    """Replace the view ``valid`` by a table of its rows with label 1, and count the rows left out, by reason.

    Of a pair that occurs several times the first row is kept, in order of time, then of the raw files.

    Args:
        workspace: Workspace that holds ``valid``.
        core: Least rows of a user and of an item: those with fewer are left out until none has fewer. None keeps all.
        timed: Whether rows have times.

    Raises:
        DataError: No rows are left.
    """
    first = f"row_number() OVER (PARTITION BY {USER}, {ITEM} ORDER BY {f'{TIME}, ' if timed else ''}{ROW}) = 1"
    workspace.query(f"CREATE TABLE positives AS SELECT * FROM valid WHERE {LABEL} = 1 QUALIFY {first}")
    [(read, positive, kept)] = workspace.query(
        f"SELECT count(*), count(*) FILTER (WHERE {LABEL} = 1), (SELECT count(*) FROM positives) FROM valid"
    )
    dropped = {"label 0 in implicit feedback": read - positive, "repeated user-item pair": positive - kept}
    if core is not None:
        dropped[f"below the {core}-core"] = _keep_core(workspace, core)
    if kept == dropped.get(f"below the {core}-core", 0):
        raise DataError(f"no rows are left: {dropped}. Give more data, or a smaller data.core")
    workspace.query("DROP VIEW valid")
    workspace.query("ALTER TABLE positives RENAME TO valid")
    return {reason: count for reason, count in dropped.items() if count}


def _keep_core(workspace: Workspace, core: int) -> int:
    deleted = 0
    while True:
        [(count,)] = workspace.query(f"""
            DELETE FROM positives
            WHERE {USER} IN (SELECT {USER} FROM positives GROUP BY ALL HAVING count(*) < {core})
                OR {ITEM} IN (SELECT {ITEM} FROM positives GROUP BY ALL HAVING count(*) < {core})""")
        if count == 0:
            return deleted
        deleted += count
