"""How a split is ranked: the settings that decide what the numbers mean, resolved for a task and a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Group = Literal["user_id", "request_id"]


@dataclass(frozen=True)
class Protocol:
    """How a split is ranked, as shown with its metrics. A task with further settings derives its own class.

    Attributes:
        task: name of the task.
        words: how the split is ranked, to read.
        ndcg_at, hit_rate_at: the k.
        group_by: whose rows are ranked among themselves: those of a user, or of a request (an impression list).
        exclude_seen: whether the items of a row's input are left out of what is ranked for it.
        rankings: what positives are ranked among, where the task has several rankings.
    """

    task: str
    words: str
    ndcg_at: tuple[int, ...]
    hit_rate_at: tuple[int, ...]
    group_by: Group = "user_id"
    exclude_seen: bool = False
    rankings: tuple[str, ...] | None = None

    def record(self) -> dict[str, Any]:
        """Return the settings as metrics files hold them."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
