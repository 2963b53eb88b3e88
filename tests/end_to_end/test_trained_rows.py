"""A warm start whose former runs were trained on today's test rows: counted, warned of, not compared with others."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

import cove_dist as cove
from cove_dist.errors import ConfigError
from cove_dist.experiments.comparison import compare_runs
from cove_dist.tasks.configuration import load_run_config
from tests.unit.data.prepare_helpers import pairs, read_decoded, write_csv

SETTINGS = {"embeddings.dim": 8, "trainer.batch_size": 64, "trainer.device": "cpu", "trainer.epochs": 1}
COLUMNS = {"user": "user", "item": "item", "label": None, "split": "random", "candidates": 5}


def test_test_rows_that_former_runs_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw = np.random.default_rng(0)
    rows = {(int(user), int(item)) for user, item in draw.integers(0, [20, 40], (400, 2))}
    source = write_csv(tmp_path / "log.csv", sorted(rows), ("user", "item"))
    first, second = (
        cove.prepare(source, tmp_path / f"data_{seed}", settings={**COLUMNS, "seed": seed}) for seed in (1, 2)
    )
    runs = {name: tmp_path / "runs" / name for name in ("former", "warm", "chain", "fresh")}
    cove.train(first, "bprmf", output=runs["former"], settings=SETTINGS)
    cove.train(second, output=runs["warm"], settings={"warm_start": str(runs["former"])})
    cove.train(second, output=runs["chain"], settings={"warm_start": str(runs["warm"])})
    cove.train(second, "bprmf", output=runs["fresh"], settings=SETTINGS)
    splits = [{name: set(pairs(part)) for name, part in read_decoded(folder).items()} for folder in (first, second)]
    for name in ("warm", "chain"):
        counts = json.loads((runs[name] / "warm_start.json").read_text())["trained_pairs"]
        for split, count in counts.items():
            assert count == len((splits[1][split] & splits[0]["train"]) - splits[1]["train"]) > 5
    assert "were training rows of" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for name in ("warm", "chain", "fresh"):
            cove.load(runs[name]).evaluate("test")
    assert caplog.text.count("metrics are better than the truth") == 2
    compare_runs([str(runs["warm"]), str(runs["chain"])], "test", "best")
    with pytest.raises(ConfigError, match=r"their metrics mean different things:\n.*new_rows"):
        compare_runs([str(runs["warm"]), str(runs["fresh"])], "test", "best")

    cove.prepare(source, first, settings={**COLUMNS, "seed": 3, "overwrite": True})  # other rows are for training
    assert "it was trained on other data than" in after_a_broken_chain(second, runs, "changed", caplog)
    runs["former"].rename(tmp_path / "moved")
    assert f"The earlier run {runs['former']} cannot be followed" in after_a_broken_chain(second, runs, "gone", caplog)


def after_a_broken_chain(data: Path, runs: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture) -> str:
    """Start from "warm", which started from "former"; return the log."""
    caplog.clear()
    output = runs["fresh"].with_name(name)
    cove.train(data, output=output, settings={"warm_start": str(runs["warm"])})
    pairs = json.loads((output / "warm_start.json").read_text())["trained_pairs"]
    assert pairs == {"validation": "unknown", "test": "unknown"}
    cove.load(output).evaluate("test")
    assert "may have been trained on rows of the test split: metrics may be better than the truth" in caplog.text
    with pytest.raises(ConfigError, match=r"their metrics mean different things:\n.*new_rows"):
        compare_runs([str(output), str(runs["fresh"])], "test", "best")
    return caplog.text


def test_a_run_goes_on_when_the_one_it_started_from_is_gone(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "log.csv", [(n % 9, n % 31, 1) for n in range(100)], ("user", "item", "time"))
    data = cove.prepare(source, tmp_path / "data", settings={**COLUMNS, "time": "time"})
    former, warm = tmp_path / "former", tmp_path / "warm"
    cove.train(data, "bprmf", output=former, settings={**SETTINGS, "seed": 7})
    start = {"warm_start": str(former), "trainer.checkpoint.resume": "auto"}
    cove.train(data, output=warm, settings=start)
    former.rename(tmp_path / "moved")
    run = cove.train(data, output=warm, settings={**start, "trainer.epochs": 2})
    assert json.loads((run.folder / "summary.json").read_text())["epoch"] == 2
    assert load_run_config([f"warm_start={former}", f"data={data}", f"output={warm}"])[0].seed == 7
