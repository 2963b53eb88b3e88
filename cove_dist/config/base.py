"""What every section of a configuration is."""

from __future__ import annotations

from functools import partial

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

settings = partial(dataclass, frozen=True, config=ConfigDict(extra="forbid"))
