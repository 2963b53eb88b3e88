"""Constrained types for the arguments of models and configurations; checked when a YAML file is read.

The types that data sets use as well are defined in `data_pipeline.types`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from data_pipeline.types import NonNegativeFloat, NonNegativeInt, Number, PositiveFloat, PositiveInt, Text

__all__ = [
    "Cutoff",
    "Folder",
    "JsonFile",
    "LayerSizes",
    "NonNegativeFloat",
    "NonNegativeInt",
    "Pooling",
    "PositiveFloat",
    "PositiveInt",
    "PositiveShare",
    "Probability",
    "Seed",
    "TableFile",
    "Text",
    "UnitInterval",
]

UnitInterval = Annotated[float, Number, Ge(0), Le(1)]
PositiveShare = Annotated[float, Number, Gt(0), Le(1)]
Probability = Annotated[float, Number, Ge(0), Lt(1)]
Pooling = Literal["sum", "mean", "max"]  # of the vectors of a list
Cutoff = Annotated[int, Number, Gt(0), Le(10_000)]  # of ranking metrics, whose memory grows with it
LayerSizes = Annotated[Sequence[PositiveInt], MinLen(1)]

_FILES = (".arrow", ".csv", ".feather", ".html", ".json", ".jsonl", ".md", ".npy", ".onnx", ".parquet", ".pq", ".pt",
          ".pt2", ".safetensors", ".tex", ".tsv", ".txt", ".xlsx")  # fmt: skip


def _local(value: str) -> str:
    if "://" in value:
        raise PydanticCustomError(
            "local", "outputs are local; give a path, of mounted storage for example, or copy the files afterwards"
        )
    return value


def _folder(value: str) -> str:
    suffix = Path(value).suffix.lower()
    if suffix in _FILES:
        raise PydanticCustomError(
            "folder", "a folder of files is written; give a name without {suffix}", {"suffix": suffix}
        )
    return value


def _file(*suffixes: str) -> AfterValidator:
    """Return a check that a file's name has one of the suffixes of the formats that can be written."""

    def check(value: str) -> str:
        if Path(value).suffix.lower() not in suffixes:
            raise PydanticCustomError(
                "file", "the name should end in {suffixes}, by its format", {"suffixes": " or ".join(suffixes)}
            )
        return value

    return AfterValidator(check)


Local = Annotated[Text, AfterValidator(_local)]
Folder = Annotated[Local, AfterValidator(_folder)]  # of a program's output
JsonFile = Annotated[Local, _file(".json")]
TableFile = Annotated[Local, _file(".parquet", ".csv")]
Seed = Annotated[NonNegativeInt, Lt(1 << 31)]
