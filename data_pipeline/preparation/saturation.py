"""Users of implicit feedback who have too many items to draw negatives or candidates for them."""

from __future__ import annotations

from typing import Literal

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ITEM, SPLIT, USER
from data_pipeline.preparation.workspace import Workspace

SaturatedUsers = Literal["error", "drop"]


def leave_out_saturated(workspace: Workspace, candidates: int, policy: SaturatedUsers) -> dict[str, int]:
    """Find users for whom no negative can be drawn in training, or fewer than `candidates` in validation and test.

    Args:
        workspace: Workspace that holds ``rows``, which contains every pair of user and item once.
        candidates: Items to rank with each positive of validation and test, which the user has in no split.
        policy: "error" refuses such users; "drop" leaves all their rows out, repeatedly, since items that no other user
            has are removed as well.

    Returns:
        The number of rows left out, by reason.

    Raises:
        DataError: There is such a user and ``policy`` is "error", or no rows are left.
    """
    dropped = 0
    while _list_saturated(workspace, candidates):
        if policy == "error":
            raise DataError(_describe(workspace, candidates))
        [(count,)] = workspace.query(f"DELETE FROM rows WHERE {USER} IN (SELECT {USER} FROM saturated)")
        dropped += count
    if dropped and not workspace.query("SELECT 1 FROM rows LIMIT 1"):
        raise DataError(
            f"no rows are left: every user has all items of training, or fewer than data.candidates = {candidates}"
            " other items, and data.saturated_users = drop leaves such users out. Lower data.candidates"
        )
    return {"users with too many items": dropped} if dropped else {}


def _list_saturated(workspace: Workspace, candidates: int) -> int:
    """Create the table ``saturated`` and count its users."""
    workspace.query(f"""
        CREATE OR REPLACE TABLE saturated AS
        SELECT * FROM (
            SELECT {USER}, count(*) AS seen, count(*) FILTER (WHERE {SPLIT} = 0) AS trained,
                bool_or({SPLIT} > 0) AS evaluated, (SELECT count(DISTINCT {ITEM}) FROM rows) AS items,
                (SELECT count(DISTINCT {ITEM}) FROM rows WHERE {SPLIT} = 0) AS trained_items
            FROM rows GROUP BY {USER}
        ) WHERE trained = trained_items OR (evaluated AND items - seen < {candidates})""")
    [(count,)] = workspace.query("SELECT count(*) FROM saturated")
    return count


def _describe(workspace: Workspace, candidates: int) -> str:
    [(user, seen, items, of_training, users, least)] = workspace.query(f"""
        SELECT {USER}, seen, items, trained = trained_items, (SELECT count(*) FROM saturated),
            (SELECT min(items - seen) FROM saturated)
        FROM saturated ORDER BY trained < trained_items, {USER} LIMIT 1""")
    others = f" (and {users - 1} more such users)" if users > 1 else ""
    leave = "leave such users out, counted in report.json: data.saturated_users=drop"
    if of_training:
        return (
            f"user {user!r} has interacted with all items of the training split{others}; cannot sample negatives."
            f" Give more items, or {leave}"
        )
    fewer = f"to {least}, or 0 for none" if least else "to 0, for none"
    return (
        f"user {user!r} has interacted with {seen} of the {items} items{others}; cannot draw {candidates} other"
        f" candidates. Lower data.candidates ({fewer}), or {leave}"
    )
