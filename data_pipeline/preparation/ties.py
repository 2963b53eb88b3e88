"""Rows of ``rows`` without an order: those of the same user and time, or of the same request."""

from __future__ import annotations

from data_pipeline.preparation.columns import SPLIT, TIME, USER
from data_pipeline.preparation.split import SplitRule
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import REQUEST


def count_ties(workspace: Workspace, rule: SplitRule) -> dict[str, int]:
    """Count and log the rows that share user and time, or a request, with another row.

    Returns:
        Counts by name, empty where there is no such row. ``groups``: sets of several such rows; ``rows``: the rows of
        these groups; ``users_of_one_group``: users with several rows, all in one group, which no split by time can
        divide; ``cut_groups``: groups with rows in several splits.
    """
    if not (rule.requests or rule.timed):
        return {}
    key = REQUEST if rule.requests else TIME
    [(groups, rows, whole, cut)] = workspace.query(f"""
        SELECT count(*), sum(n), count(*) FILTER (WHERE n = of_user), count(*) FILTER (WHERE cut)
        FROM (
            SELECT count(*) AS n, min({SPLIT}) < max({SPLIT}) AS cut,
                sum(count(*)) OVER (PARTITION BY {USER}) AS of_user
            FROM rows GROUP BY {USER}, {key}
        ) WHERE n > 1""")
    if not groups:
        return {}
    shared = "a request" if rule.requests else "user and time"
    cuts = f"; {cut:,} of them have rows in several splits ({_cause(rule)})" if cut else ", each in one split"
    single = f"; {whole:,} users have no other rows" if whole else ""
    workspace.on_progress(f"{rows:,} rows share {shared} with others, in {groups:,} groups{cuts}{single}")
    return {"groups": groups, "rows": int(rows), "users_of_one_group": whole, "cut_groups": cut}


def _cause(rule: SplitRule) -> str:
    if rule.by == "given":
        return "by the split of the data set"
    if rule.by == "leave_one_out":
        return "one row per user is left out, chosen by a seeded hash among rows of the same time"
    return f"data.split={rule.by} divides rows; data.request=COLUMN keeps those of a request together"
