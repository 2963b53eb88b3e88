"""Settings as ``key=value`` words, from Python values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cove_dist.config_folders import is_group
from cove_dist.errors import ConfigError


def overrides_of(settings: Mapping[str, Any] | None) -> list[str]:
    """Return settings as ``key=value`` with quoted text.

    A mapping for a group, such as ``trainer``, sets keys of this section: ``trainer=…`` would choose a file.

    Example:
        >>> overrides_of({"trainer": {"epochs": 5, "optimizer": {"learning_rate": 0.1}}, "seed": 3})
        ['trainer.epochs=5', 'trainer.optimizer.learning_rate=0.1', 'seed=3']
    """
    from cove_dist.config.overrides import flat

    found: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        found |= flat(value, f"{key}.") if isinstance(value, Mapping) and is_group(key) else {key: value}
    return [override(key, value) for key, value in found.items()]


def override(key: str, value: Any) -> str:
    """Return one setting as ``key=value``. Scalars and arrays of NumPy and torch are taken as Python's.

    Raises:
        ConfigError: The value is neither a number, text, None, a list nor a mapping.

    Example:
        >>> override("trainer.epochs", 5), override("user", "u id"), override("label", None)
        ('trainer.epochs=5', "user='u id'", 'label=null')
    """
    try:
        return f"{key}={_text(value)}"
    except TypeError as error:
        allowed = "give a number, text, True, False, None or a list"
        if isinstance(value, Mapping):
            allowed = "rename the columns, or write the mapping in a YAML file of a folder that COVE_CONFIG_DIR names"
        raise ConfigError(f"{key} = {value!r}: {error}; {allowed}") from error


def _key(key: Any) -> str:
    """Return a key of a mapping, which Hydra does not read in quotes, with backslashes before Hydra's signs."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(key))


def _text(value: Any) -> str:
    from cove_dist.config.overrides import keys_of_mapping, quoted

    if hasattr(value, "tolist"):  # of NumPy, torch or pandas
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        text = "{" + ",".join(f"{_key(key)}:{_text(each)}" for key, each in value.items()) + "}"
        if keys_of_mapping(text) != list(map(str, value)):
            raise TypeError("its keys have letters beyond ASCII, quotes, or look like a number or null")
        return text
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"of type {type(value).__name__}")
