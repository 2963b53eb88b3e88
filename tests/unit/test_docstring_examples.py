"""The examples of docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
NEED_DATA = {  # examples that read prepared data, which tests of these functions do
    "cove_dist.inference.run.Run.fold_in",
    "cove_dist.inference.run.Run.export",
    "cove_dist.api.prepare",
    "cove_dist.inference.ids.IdTable",
    "data_pipeline.batch.Batch",
    "data_pipeline.id_matching.match_rows",
    "data_pipeline.schema.Schema",
    "data_pipeline.streaming.loader.build_loader",
    "data_pipeline.trained_pairs.pairs_trained_before",
}


def modules() -> list[str]:
    """The modules whose docstrings have examples."""
    files = (path for package in ("cove_dist", "data_pipeline") for path in (ROOT / package).rglob("*.py"))
    found = (path.relative_to(ROOT).with_suffix("") for path in files if ">>> " in path.read_text())
    return sorted(".".join(path.parts) for path in found)


def examples(module: str) -> list[doctest.DocTest]:
    names = {"np": np, "torch": torch}
    loaded = importlib.import_module(module)
    return [test for test in doctest.DocTestFinder().find(loaded, extraglobs=names) if test.examples]


@pytest.mark.parametrize("module", modules())
def test_examples(module: str) -> None:
    for test in examples(module):
        if test.name not in NEED_DATA:
            assert doctest.DocTestRunner().run(test).failed == 0, test.name


def test_examples_that_are_left_out_exist() -> None:
    assert {test.name for module in modules() for test in examples(module)} >= NEED_DATA
