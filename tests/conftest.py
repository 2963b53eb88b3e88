"""Fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.preparation.prepare import prepare


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 3,001 rows (no multiple of anything) of 60 users and 80 items."""
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    prepare(Synthetic(users=60, items=80, rows=3001, user_tree=(6, 2), item_tree=(8, 2)), folder, name="synthetic")
    return folder
