"""The start of a run from a finished one; see `cove_dist.warm_start`."""

from __future__ import annotations

from typing import Literal

from cove_dist.config.base import settings
from cove_dist.types import PositiveFloat, PositiveInt, Text


@settings
class WarmStartConfig:
    run: Text | None
    checkpoint: Literal["newest", "best"]
    gone: Literal["drop", "keep"]
    new_rows: Literal["random", "zero", "mean", "code", "fold_in"]
    fold_in_steps: PositiveInt
    fold_in_learning_rate: PositiveFloat
