"""Constrained types of settings: numbers in a range, and text that is not empty. Checked when a YAML file is read."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt, MinLen
from pydantic import BeforeValidator, FiniteFloat
from pydantic_core import PydanticCustomError


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number, not true or false")
    return value


Number = BeforeValidator(_refuse_boolean)  # pydantic reads true as 1

PositiveInt = Annotated[int, Number, Gt(0)]
NonNegativeInt = Annotated[int, Number, Ge(0)]
PositiveFloat = Annotated[FiniteFloat, Number, Gt(0)]
NonNegativeFloat = Annotated[FiniteFloat, Number, Ge(0)]
Text = Annotated[str, MinLen(1)]
