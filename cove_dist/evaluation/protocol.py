"""How a split is ranked: the settings that decide what the numbers mean, resolved for a task and a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cove_dist.errors import ConfigError
from data_pipeline.schema import REQUEST, Schema

Group = Literal["user_id", "request_id"]


@dataclass(frozen=True)
class Protocol:
    """What stands beside the metrics wherever they are shown.

    Attributes:
        group_by: whose rows are ranked among themselves: those of a user, or of a request (an impression list).
        exclude_seen: whether the items of a row's input are left out of what is ranked for it.
        words: the same, to be read.
    """

    group_by: Group
    exclude_seen: bool
    words: str


def protocol_of(task: str, schema: Schema, group_by: Group | None = None, exclude_seen: bool | None = None) -> Protocol:
    """Resolve the settings for data.

    Args:
        task: ``ctr``, ``cf`` or ``sequential``.
        schema: of the data.
        group_by: None is ``user_id``.
        exclude_seen: of lists; None: True where a row is continued by its next item, as S3-Rec's evaluation does,
            and False where lists are completed, whose targets may repeat items of the input.

    Raises:
        ConfigError: the task has no use for a setting, or the data have no requests.
    """
    check_protocol(task, group_by, exclude_seen)
    if group_by == REQUEST and not schema.requests:
        raise ConfigError(
            f"evaluation.group_by = {REQUEST}: {schema.name} was prepared without requests; prepare it with"
            " request=COLUMN, which names the request (impression, session) of every row, or leave group_by=null"
        )
    if exclude_seen is None:
        exclude_seen = task == "sequential" and schema.longest_target == 1
    return Protocol(group_by or "user_id", exclude_seen, _words(task, group_by, exclude_seen))


def check_protocol(task: str, group_by: Group | None, exclude_seen: bool | None) -> None:
    """Refuse settings that the task has no use for.

    Raises:
        ConfigError: with what is allowed.
    """
    if group_by is not None and task != "ctr":
        ranked = "of a user" if task == "cf" else "for a list"
        raise ConfigError(
            f"evaluation.group_by = {group_by}: the task {task} ranks all items {ranked}; allowed: null. Requests"
            " group the labelled rows of click-through rate models"
        )
    if exclude_seen is not None and task != "sequential":
        kept = "items of earlier splits are always left out" if task == "cf" else "the rows themselves are ranked"
        raise ConfigError(f"evaluation.exclude_seen = {exclude_seen}: in the task {task} {kept}; allowed: null")


def _words(task: str, group_by: Group | None, exclude_seen: bool) -> str:
    if task == "ctr":
        return f"ranking per {'request' if group_by == REQUEST else 'user'}"
    if task == "cf":
        return "full ranking leaves out items of earlier splits"
    return "items of the input are left out" if exclude_seen else "items of the input may be ranked again"
