"""Settings of interactions that would do nothing are refused before a file is read."""

from __future__ import annotations

from typing import Any

import pytest

from data_pipeline.datasets.custom import Custom
from data_pipeline.errors import DataError

COLUMNS = {"source": "absent.csv", "user": "user", "item": "item", "time": "time"}


IDLE = {
    "candidates with labels": ({"label": "y", "candidates": 50}, "data.candidates = 50: only for implicit feedback"),
    "ratios of leave-one-out": ({"ratios": (6, 2, 2)}, r"data.ratios = \[6, 2, 2\]: does nothing with .*leave_one_out"),
    "ratios of a given split": (
        {"ratios": (6, 2, 2), "split_column": "part"},
        "data.split=given, data.validation=none, which use no ratios. Leave it out",
    ),
    "ratios of a row left out": (
        {"ratios": (6, 2, 2), "split_column": "part", "validation": "leave_one_out"},
        "data.split=given, data.validation=leave_one_out",
    ),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_setting_that_does_nothing_is_refused(case: str) -> None:
    settings, message = IDLE[case]
    with pytest.raises(DataError, match=message):
        Custom(**COLUMNS | settings).check()


@pytest.mark.parametrize(
    "settings",
    [
        {"label": "y", "candidates": 0},
        {"label": "y", "candidates": 99},
        {"label": "y", "candidates": 50, "implicit": True},
        {"ratios": (8, 1, 1)},
        *({"ratios": (6, 2, 2), "split": split} for split in ("user_time", "time", "random")),
        {"ratios": (6, 2, 2), "split_column": "part", "validation": "ratio"},
    ],
)
def test_a_setting_that_acts_or_has_its_default_is_taken(settings: dict[str, Any]) -> None:
    Custom(**COLUMNS | settings).check()
