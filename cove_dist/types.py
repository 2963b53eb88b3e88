"""Constrained types for the arguments of models and configurations; checked when a YAML file is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BeforeValidator, FiniteFloat
from pydantic_core import PydanticCustomError


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number, not true or false")
    return value


_Number = BeforeValidator(_number)  # pydantic takes true for 1

PositiveInt = Annotated[int, _Number, Gt(0)]
NonNegativeInt = Annotated[int, _Number, Ge(0)]
PositiveFloat = Annotated[FiniteFloat, _Number, Gt(0)]
NonNegativeFloat = Annotated[FiniteFloat, _Number, Ge(0)]
UnitInterval = Annotated[float, _Number, Ge(0), Le(1)]
Probability = Annotated[float, _Number, Ge(0), Lt(1)]
LayerSizes = Annotated[Sequence[PositiveInt], MinLen(1)]
Text = Annotated[str, MinLen(1)]
