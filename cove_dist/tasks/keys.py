"""The keys of runs: those that only runs of one task have, and sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser

from cove_dist.config.overrides import key_of
from cove_dist.config.yaml_files import keys, read_yaml, unknown_key
from cove_dist.config_folders import config_folder, find_file
from cove_dist.from_python import override
from cove_dist.tasks.inheritance import CLASS_SECTIONS, OPEN_SECTIONS
from cove_dist.tasks.registry import TASKS

FREE = (*OPEN_SECTIONS, *(f"{section}." for section in CLASS_SECTIONS.values()))  # sections that hold any keys


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


def with_keys_of_sections(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which a mapping for a section sets the keys of this section, as Hydra does when it merges.

    Example:
        >>> with_keys_of_sections(["embeddings={dim: 8, optimizer: {name: adam}}", "seed=3"])
        ['embeddings.dim=8', "embeddings.optimizer.name='adam'", 'seed=3']
    """
    found: list[str] = []
    for each in overrides:
        key, _, value = each.partition("=")
        if value.startswith("{") and key_of(each) in _sections():
            found += _keys_of(key, OverridesParser.create().parse_override(each).value())
        else:
            found.append(each)
    return found


def _keys_of(key: str, value: Any) -> Iterator[str]:
    """Yield the overrides of a setting, or of all settings of a section."""
    if isinstance(value, Mapping) and key_of(key) in _sections():
        for name, inner in value.items():
            yield from _keys_of(f"{key}.{name}", inner)
    else:
        yield override(key, value)


@cache
def _sections() -> frozenset[str]:
    """Return the dotted keys of the sections of all tasks, without those that hold any keys."""
    found = {name for task in TASKS.values() for name in _sections_of(task.config)}
    return frozenset(name for name in found if f"{name}." not in FREE)


def _sections_of(config: type[Any], prefix: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(config).items():
        if is_dataclass(kind) and isinstance(kind, type):
            yield f"{prefix}{name}"
            yield from _sections_of(kind, f"{prefix}{name}.")
