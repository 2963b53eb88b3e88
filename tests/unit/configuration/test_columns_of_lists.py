"""Settings of columns of lists act, or are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.model import build_ctr_model
from cove_dist.tasks.registry import task_of
from data_pipeline.schema import Categorical, Schema
from tests.unit.configuration.schemas import LISTS, SCHEMA

TAGS = replace(SCHEMA, categorical=(*SCHEMA.categorical, Categorical("tags", 6, 5, sequence=True, max_length=4)))
NO_LISTS = replace(SCHEMA, categorical=SCHEMA.categorical[:3])


@pytest.mark.parametrize(
    ("overrides", "schema", "message"),
    [
        (["+embeddings.pooling.age=max"], TAGS, r"pooling\.age = max: .* lists of x that are pooled: before, tags"),
        (["model=din", "+embeddings.pooling.before=sum"], TAGS, r"pooling\.before = sum: .* attends to the entries"),
        (["embeddings.pooling.default=max"], NO_LISTS, r"pooling\.default = max: would do nothing: .*pooled: none"),
        (["model=din", "embeddings.pooling.default=max"], SCHEMA, r"pooling\.default = max: would do nothing"),
        (["model=din"], NO_LISTS, r"model = DIN: attends to lists of items, and x has none; prepare it with lists="),
        ([], LISTS, "model = DeepFM: learns from labels, and the data y are sequences"),
    ],
)
def test_what_would_do_nothing_is_refused(overrides: list[str], schema: Schema, message: str) -> None:
    config, _ = load_run_config(overrides)
    with pytest.raises(ConfigError, match=message):
        task_of(config).check_data(config, schema)


def test_a_pooling_that_there_is_not_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"embeddings\.pooling\.default = min: input should be 'sum', 'mean' or 'max'"
    ):
        load_run_config(["embeddings.pooling.default=min"])
    with pytest.raises(ConfigError, match=r"embeddings\.pooling: needs the key 'default'"):
        load_run_config(["~embeddings.pooling.default", "+embeddings.pooling.before=sum"])


def test_pooling_is_a_setting_of_click_through_rate_models_only() -> None:
    with pytest.raises(ConfigError, match=r"embeddings\.pooling.*: is a setting of click-through rate models only"):
        load_run_config(["model=bprmf", "embeddings.pooling.default=max"])


@pytest.mark.parametrize(
    ("overrides", "by_row"),
    [
        ([], set()),
        (["embeddings.pooling.default=sum", "quantizer=cove_items"], {"item_id"}),
        (["embeddings.pooling.default=max"], {"item_id", "tags"}),
        (["+embeddings.pooling.tags=max"], {"tags"}),
        (["model=din"], {"item_id"}),
    ],
)
def test_tables_are_looked_up_by_row_only_where_rows_are_needed(overrides: list[str], by_row: set[str]) -> None:
    config, _ = load_run_config(overrides)
    tables = build_ctr_model(config, TAGS).tables
    assert ({*tables.rows.embeddings} if by_row else set()) == by_row
    bags = tables.bags if by_row else tables
    assert not by_row & {*bags.embedding_bags}
