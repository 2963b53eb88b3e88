"""JSON as RFC 8259 defines it: numbers that are not finite become null, which other programs can read.

Imports only the standard library, so that the workers of benchmarks can use it under another interpreter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.files import replaced_file


def to_json(value: Any, indent: int | None = None) -> str:
    """Return the JSON text of a value.

    Args:
        value: Mappings, lists, tuples, strings, booleans, numbers and None; NaN and infinities are written as null.
        indent: Spaces per level; None writes one line.

    Raises:
        TypeError: For a value of any other type.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write a value as an indented JSON file, complete or not at all; see `to_json`."""
    text = to_json(value, indent=2) + "\n"
    with replaced_file(path) as file:
        file.write_text(text, encoding="utf-8")


def read_record(line: str) -> dict[str, Any]:
    """Read one line of metrics, with null as NaN: the metric is undefined.

    Raises:
        ValueError: The line is not a JSON object.
    """
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(f"{line[:80]}: not a JSON object")
    return undefined_as_nan(values)


def undefined_as_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with NaN instead of None."""
    return {name: math.nan if value is None else value for name, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value
