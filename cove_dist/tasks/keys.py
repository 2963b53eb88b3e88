"""Keys that only runs of one task have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cove_dist.config.yaml_files import keys, read_yaml, unknown_key
from cove_dist.config_folders import config_folder, find_file
from cove_dist.tasks.registry import TASKS

# Sections that hold any keys
FREE = (
    "model.",
    "embeddings.sharding.",
    "embeddings.pooling.",
    "trainer.loggers.",
    "loss.",
    "evaluation.metrics.",
)


@cache
def foreign_keys(task: str) -> dict[str, list[str]]:
    """Return every key that runs of a task do not have, and the tasks that have it. Sections follow their keys."""
    of_all = keys(read_yaml(config_folder() / "train.yaml"))
    files = {name: find_file(f"task/{name}") for name in TASKS}
    by_task = {name: keys(read_yaml(path)) for name, path in files.items() if path is not None}
    shared = {*of_all, *by_task.pop(task, [])}
    found: dict[str, list[str]] = {}
    for name in by_task:
        for key in reversed(by_task[name]):
            if key not in shared:
                found.setdefault(key, []).append(name)
    return found


def explain_key(key: str, known: Sequence[str], task: str) -> str:
    """Return the message for a key that a run does not have: one of another task, a new one, or an unknown one."""
    foreign = foreign_keys(task)
    if key not in foreign and key.startswith(FREE) and not key.startswith("model."):
        return f"{key}: a key that is not there yet has a plus before it: +{key}=…"
    if key not in foreign:
        return unknown_key(key, known, list(foreign))
    owners = " and ".join(TASKS[name].title for name in foreign[key])
    return f"{key}: is a setting of {owners} only; the model of this run is one of {TASKS[task].title}"
