"""Which data sets and settings ``engine=spark`` prepares."""

from __future__ import annotations

from data_pipeline.datasets.custom import Custom
from data_pipeline.errors import DataError
from data_pipeline.preparation.dataset import Dataset

_SETTINGS = (
    *("sequences", "lists", "request", "dense_transforms", "categories", "train", "validation_file", "test"),
    "keep_ids",
)
_REMEDY = "Leave it out, or set engine=duckdb"


def refuse_unsupported(dataset: Dataset) -> None:
    """Refuse data sets and settings that only DuckDB prepares.

    Raises:
        DataError: With the setting.
    """
    if not isinstance(dataset, Custom):
        raise DataError(
            f"engine = spark: prepares data=custom only, not {type(dataset).__name__}. Set engine=duckdb, or write its"
            " rows to files of interactions"
        )
    for name in _SETTINGS:
        if value := getattr(dataset, name):
            shown = value if isinstance(value, (str, int)) else list(value)
            raise DataError(f"data.{name} = {shown}: not with engine=spark. {_REMEDY}")
