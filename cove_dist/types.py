"""Constrained types for the arguments of models and configurations; checked when a YAML file is read.

The types that data sets use as well are defined in `data_pipeline.types`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from data_pipeline.types import NonNegativeFloat, NonNegativeInt, Number, PositiveFloat, PositiveInt, Text

__all__ = [
    "LayerSizes",
    "NonNegativeFloat",
    "NonNegativeInt",
    "Pooling",
    "PositiveFloat",
    "PositiveInt",
    "PositiveShare",
    "Probability",
    "Text",
    "UnitInterval",
]

UnitInterval = Annotated[float, Number, Ge(0), Le(1)]
PositiveShare = Annotated[float, Number, Gt(0), Le(1)]
Probability = Annotated[float, Number, Ge(0), Lt(1)]
Pooling = Literal["sum", "mean", "max"]  # of the vectors of a list
LayerSizes = Annotated[Sequence[PositiveInt], MinLen(1)]
