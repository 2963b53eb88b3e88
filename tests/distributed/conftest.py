"""Data of two days, and a run on those of the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.warm_runs import CODES, trained
from tests.two_days import TwoDays, prepare_two_days


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> TwoDays:
    return prepare_two_days(tmp_path_factory.mktemp("days"))


@pytest.fixture(scope="module")
def first(days: TwoDays) -> Path:
    """Yesterday's run: BPRMF with codebooks."""
    return trained(days, "first", "model=bprmf", *CODES, "quantizer.learning=ema")
