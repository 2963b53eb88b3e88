"""What training and recommendation warn of, though they go on."""

from __future__ import annotations

import pytest

from cove_dist.console import counted
from cove_dist.inference.arguments import listed_items
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.quantizers import mention_idle_codes
from data_pipeline.schema import Categorical, Schema

IDS = (Categorical("user_id", 9, 7, "user"), Categorical("item_id", 90, 80, "item"))
SCHEMA = Schema(name="toys", label="label", categorical=IDS, dense=(), splits={}, implicit=True)


def test_more_codes_than_ids_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    levels = ["quantizer.user_levels=[8,2]", "quantizer.item_levels=[80,10]"]
    config, _ = load_run_config(["model=bprmf", "quantizer=cove", *levels])
    mention_idle_codes(config, SCHEMA)
    [line] = caplog.messages
    assert line.startswith("quantizer.user_levels = [8, 2]: 8 codes for the 7 ids of user_id")


def test_lists_that_are_shorter_than_k_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert listed_items(80, SCHEMA) == 80
    assert listed_items(7, SCHEMA, "user") == 7
    assert not caplog.messages
    assert listed_items(81, SCHEMA) == 80
    assert listed_items(10**12, SCHEMA, "user") == 7
    assert caplog.messages == [
        "k = 81: the training split has 80 items, so lists are shorter",
        "k = 1000000000000: the training split has 7 users, so lists are shorter",
    ]


def test_one_is_not_plural() -> None:
    assert [counted(count, "step") for count in (0, 1, 2_000)] == ["0 steps", "1 step", "2,000 steps"]
