"""Users of implicit feedback who have so many items that none, or too few, are left to compare theirs with."""

from __future__ import annotations

from typing import Literal

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ITEM, SPLIT, USER
from data_pipeline.preparation.workspace import Workspace

SaturatedUsers = Literal["error", "drop"]


def leave_out_saturated(workspace: Workspace, candidates: int, policy: SaturatedUsers) -> dict[str, int]:
    """Find users for whom no negative can be drawn in training, or fewer than `candidates` in validation and test.

    Args:
        workspace: holds ``rows``, in which every pair of user and item is there once.
        candidates: items beside each positive of validation and test, which the user has in no split.
        policy: "error" refuses such users; "drop" leaves all their rows out, again and again, since items that they
            alone have leave with them.

    Returns:
        The rows left out, by reason.

    Raises:
        DataError: there is such a user and `policy` is "error", or no rows are left.
    """
    dropped = 0
    while _list_saturated(workspace, candidates):
        if policy == "error":
            raise DataError(_describe(workspace, candidates))
        [(count,)] = workspace.query(f"DELETE FROM rows WHERE {USER} IN (SELECT {USER} FROM saturated)")
        dropped += count
    if dropped and not workspace.query("SELECT 1 FROM rows LIMIT 1"):
        raise DataError(
            f"no rows are left without the users who have too many items (data.saturated_users=drop): each has all"
            f" items of training, or fewer than data.candidates = {candidates} others. Lower data.candidates"
        )
    return {"of users who have too many items": dropped} if dropped else {}


def _list_saturated(workspace: Workspace, candidates: int) -> int:
    """Create the table ``saturated`` and count its users: those without negatives in training first."""
    workspace.query(f"""
        CREATE OR REPLACE TABLE saturated AS
        SELECT * FROM (
            SELECT {USER}, count(*) AS had, count(*) FILTER (WHERE {SPLIT} = 0) AS trained,
                bool_or({SPLIT} > 0) AS evaluated, (SELECT count(DISTINCT {ITEM}) FROM rows) AS items,
                (SELECT count(DISTINCT {ITEM}) FROM rows WHERE {SPLIT} = 0) AS trained_items
            FROM rows GROUP BY {USER}
        ) WHERE trained = trained_items OR (evaluated AND items - had < {candidates})""")
    [(count,)] = workspace.query("SELECT count(*) FROM saturated")
    return count


def _describe(workspace: Workspace, candidates: int) -> str:
    [(user, had, items, of_training, users, least)] = workspace.query(f"""
        SELECT {USER}, had, items, trained = trained_items, (SELECT count(*) FROM saturated),
            (SELECT min(items - had) FROM saturated)
        FROM saturated ORDER BY trained < trained_items, {USER} LIMIT 1""")
    others = f" ({users - 1} more users likewise)" if users > 1 else ""
    leave = "leave such users out, counted in report.json: data.saturated_users=drop"
    if of_training:
        return (
            f"user {user!r} has all items of the training split{others}, so no negative can be drawn."
            f" Give more items, or {leave}"
        )
    return (
        f"user {user!r} has {had} of the {items} items{others}, so {candidates} others cannot be drawn to rank beside"
        f" one. Lower data.candidates (to {least}, or 0 for none), or {leave}"
    )
