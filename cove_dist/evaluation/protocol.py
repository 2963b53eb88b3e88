"""Ranking protocol of a split: the settings that define the metrics, resolved for a task and a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Group = Literal["user_id", "request_id"]


@dataclass(frozen=True)
class RankingProtocol:
    """Ranking protocol of a split, shown with its metrics. Tasks with further settings derive a class.

    Attributes:
        task: Name of the task.
        words: Description of the protocol.
        ndcg_at, hit_rate_at: Cutoffs k.
        group_by: Groups whose rows are ranked: users, or requests (impression lists).
        exclude_seen: Whether items of a row's input are excluded from its ranking.
        rankings: Candidate sets of positives, if the task has several.
        label: The label, if it was chosen among several; of several that are learned, the first.
        labels: All learned labels, if there are several.
        weighted: Whether AUC and the metrics over samples are weighted by the rows' sample weights; None: not.
    """

    task: str
    words: str
    ndcg_at: tuple[int, ...]
    hit_rate_at: tuple[int, ...]
    group_by: Group = "user_id"
    exclude_seen: bool = False
    rankings: tuple[str, ...] | None = None
    label: str | None = None
    labels: tuple[str, ...] | None = None
    weighted: Literal[True] | None = None

    def with_kept_items(self, count: int) -> RankingProtocol:
        """Return the protocol of data with so many items that have a row but no training row (``data.keep_ids``)."""
        if not count:
            return self
        return replace(self, words=f"{self.words}; candidates include {count:,} kept items without training rows")

    def record(self) -> dict[str, Any]:
        """Return the settings as stored in metrics files."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
