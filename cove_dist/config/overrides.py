"""``key=value`` arguments: their keys, and values that Hydra would read as something else than text; dotted keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cove_dist.config_folders import is_group
from cove_dist.errors import ConfigError

PATHS = ("path", "output", "run", "source", "results", "tuned", "json", "file")  # last parts of keys that hold a path
# Last parts of keys that may hold a path or something else, such as users=all
FILES = ("rows", "users", "interactions", "keep_ids", "categories", "train", "test", "validation_file", "warm_start")
_REMOVABLE = ("loss", "metric", "logger")  # groups that need not have an option


def key_of(override: str) -> str:
    """Return the key of ``key=value``, ``+key=value``, ``++key=value`` or ``~key``."""
    return override.partition("=")[0].lstrip("+~")


def value_of(overrides: Sequence[str], key: str) -> str | None:
    """Return the text of a key's value; None if the overrides do not have the key."""
    return next((o.partition("=")[2] for o in overrides if key_of(o) == key), None)


def text_of(override: str) -> str:
    """Return the value of ``key=value`` as text, without quotes."""
    return str(OverridesParser.create().parse_override(override).value())


def prepared(overrides: Sequence[str]) -> list[str]:
    """Return overrides in Hydra's grammar, in which a group is not null: ``loss=null`` removes it, as ``~loss``.

    ``experiment=null`` is left out: nothing is chosen by default, and the last choice counts.

    Raises:
        ConfigError: A setting of Hydra's own launcher, which would do nothing.
    """
    for override in overrides:
        if key_of(override).partition(".")[0].partition("/")[0] == "hydra":
            raise ConfigError(f"{override}: is a setting of Hydra's launcher, which is not used here")
    removed = {f"{group}=null": f"~{group}" for group in _REMOVABLE}
    kept = [override for override in overrides if override not in ("trainer=null", "experiment=null")]
    return [removed.get(override) or literal(override) for override in kept]


def literal(override: str) -> str:
    """Quote a value that is meant as text: paths, options of groups, what Hydra refuses or takes for several values.

    Lists, mappings and values that are quoted already stay as they are. A path that begins with ``~/`` is in the home
    folder: shells do not expand the tilde after ``key=``.
    """
    key, separator, value = override.partition("=")
    if not separator or value in ("", "null") or _is_quoted(value):
        return override
    is_list = value[0] == "[" and value[-1] == "]" and not os.path.exists(value)
    last = key.rpartition(".")[2].lstrip("+")
    if (last in PATHS and not is_list) or (last in FILES and value.startswith("~/")):
        return f"{key}={quoted(os.path.expanduser(value))}"
    if not is_list and is_group(key.lstrip("+")) and not _is_text(override):
        return f"{key}={quoted(value)}"
    return override if value[0] in "[{" or _is_one_value(override) else f"{key}={quoted(value)}"


def quoted(text: str) -> str:
    """Return a text in Hydra's quotes: backslashes only count before a quote."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def keys_of_mapping(text: str) -> list[str] | None:
    """Return the keys that Hydra reads in the text of a mapping, as text; None if it cannot be read."""
    try:
        value = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return None
    return list(map(str, value)) if isinstance(value, Mapping) else None


@cache  # the grammar is slow
def _is_one_value(override: str) -> bool:
    try:
        return not OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def _is_text(override: str) -> bool:
    """Return whether Hydra reads the value as text, not as a number, a truth value or a mapping."""
    return _is_one_value(override) and isinstance(OverridesParser.create().parse_override(override).value(), str)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found
