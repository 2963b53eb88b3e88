"""Constrained numbers for the settings of data sets; checked when a YAML file is read."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, MinLen

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Text = Annotated[str, MinLen(1)]
