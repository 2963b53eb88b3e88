"""What every section of a configuration is."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def settings(kind: type[T]) -> type[T]:
    """Make a class a section of a configuration: a frozen dataclass that checks its values and refuses unknown keys."""
    made: type[T] = dataclass(frozen=True, config=ConfigDict(extra="forbid"))(kind)  # type: ignore[assignment]
    return made
