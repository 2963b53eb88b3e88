"""Which pairs of an evaluation split a former run was trained on, against sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.schema import Schema
from data_pipeline.trained_pairs import pairs_trained_before
from tests.unit.data.prepare_helpers import pairs, prepare_custom, read_decoded, write_csv


@pytest.mark.parametrize("split", ["validation", "test"])
def test_pairs_of_a_random_split_that_the_former_run_trained_on(tmp_path: Path, split: str) -> None:
    draw = np.random.default_rng(0)
    rows = [(int(u), int(i), 1, t) for t, (u, i) in enumerate(draw.integers(0, [12, 15], (160, 2)))]  # some twice
    text = [(f"{u}", f"{i}", label, t) for u, i, label, t in reversed(rows)] + [("new", "7", 1, 500)]
    prepare_custom(write_csv(tmp_path / "old.csv", rows), tmp_path / "old", split="random", seed=1)
    prepare_custom(write_csv(tmp_path / "new.csv", text), tmp_path / "new", split="random", seed=2)
    old, new = (
        {name: {(str(u), str(i)) for u, i in pairs(part)} for name, part in read_decoded(tmp_path / folder).items()}
        for folder in ("old", "new")
    )
    expected = (new[split] & old["train"]) - new["train"]
    former, today = ((tmp_path / folder, Schema.load(tmp_path / folder)) for folder in ("old", "new"))
    assert pairs_trained_before([former], *today, split) == len(expected) > 0
    assert pairs_trained_before([today], *today, split) == 0
    assert pairs_trained_before([today, former], *today, split) == len(expected)
