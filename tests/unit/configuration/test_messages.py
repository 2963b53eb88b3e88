"""What errors of settings name: keys, values and what is allowed, and nothing of pydantic's."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from cove_dist.config import settings
from cove_dist.config.checks import check, check_arguments
from cove_dist.errors import ConfigError
from cove_dist.types import Folder, JsonFile, PositiveFloat, TableFile
from data_pipeline.datasets.custom import Custom
from data_pipeline.preparation.dense import DenseSettings

LOCAL = "outputs are local; give a path, of mounted storage for example, or copy the files afterwards"
FILL = "data.dense_transforms.price.fill"


@settings
class Outputs:
    folder: Folder | None = None
    json: JsonFile | None = None
    table: TableFile | None = None


@settings
class Nested:
    rates: dict[str, PositiveFloat | tuple[PositiveFloat, ...]] | None = None
    column: DenseSettings | Literal["none"] | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_count": 0}, "data.min_count = 0: input should be greater than 0"),
        ({"min_count": {"city": 0}}, "data.min_count.city = 0: input should be greater than 0"),
        (
            {"min_count": {"city": "x", "tag": 0}},
            "data.min_count.city = x: input should be a valid integer\n"
            "data.min_count.tag = 0: input should be greater than 0",
        ),
        (
            {"min_count": "many"},
            "data.min_count = many: input should be a valid integer, or a section of keys, such as {key:value}",
        ),
        ({"label": 3}, "data.label = 3: input should be text, or a list, such as [a,b]"),
        ({"label": ["a", 3]}, "data.label.1 = 3: input should be text"),
        ({"dense": "price"}, "data.dense = price: input should be a list, such as [a,b]"),
        (
            {"dense_transforms": {"price": {"fil": 1}}},
            "data.dense_transforms.price.fil: unknown key; allowed: fill, clip, log, quantiles, bins, scale",
        ),
        (
            {"dense_transforms": {"price": {"fill": "men"}}},
            f"{FILL} = men: input should be a valid number, or 'mean'",
        ),
        ({"dense_transforms": {"price": {"clip": [1]}}}, "data.dense_transforms.price.clip.1: missing"),
        (
            {"dense_transforms": {"price": {"clip": [3, 1]}}},
            "clip = [3, 1]: the first must be less than the second",
        ),
        (
            {"dense_transforms": {"price": 3}},
            "data.dense_transforms.price = 3: input should be a section of keys, such as {key:value}",
        ),
    ],
)
def test_nested_settings_of_a_data_set(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_arguments(Custom, {"source": "a.csv", "user": "u", "item": "i", **values}, "data")
    assert message in str(error.value)
    assert str(error.value).count("\n") == message.count("\n")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rates": {"a": [1, -2]}}, "rates.a.1 = -2: input should be greater than 0"),
        ({"rates": {"a": -2}}, "rates.a = -2: input should be greater than 0"),
        ({"rates": {"a": {}}}, "rates.a = {}: input should be a valid number, or a list, such as [a,b]"),
        ({"column": {"log": "ln"}}, "column.log = ln: input should be 'log1p' or 'signed'"),
        ({"column": {"logs": "ln"}}, "column.logs: unknown key; allowed: fill, clip, log, quantiles, bins, scale"),
        ({"column": "some"}, "column = some: input should be a section of keys, such as {key:value}, or 'none'"),
    ],
)
def test_unions_within_unions(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(Nested, values)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folder": "lists.csv"}, "folder = lists.csv: a folder of files is written; give a name without .csv"),
        ({"json": "plan.csv"}, "json = plan.csv: the name should end in .json, by its format"),
        ({"table": "scores"}, "table = scores: the name should end in .parquet or .csv, by its format"),
        ({"folder": "s3://bucket/runs"}, f"folder = s3://bucket/runs: {LOCAL}"),
        ({"json": "gs://b/plan.json"}, f"json = gs://b/plan.json: {LOCAL}"),
        ({"table": "s3://b/scores.csv"}, f"table = s3://b/scores.csv: {LOCAL}"),
        ({"table": "scores.json"}, "table = scores.json: the name should end in .parquet or .csv, by its format"),
    ],
)
def test_names_of_outputs_are_local_and_have_the_suffix_of_their_format(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(Outputs, values)
    assert str(error.value) == message
    good = Outputs(folder="runs/v1.2", json="plan.JSON", table="p.csv")
    assert check(Outputs, {"folder": "runs/v1.2", "json": "plan.JSON", "table": "p.csv"}) == good
