"""A small search by the program itself: pruned, interrupted, resumed, on data whose test split is gone."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import OmegaConf

from data_pipeline.schema import Schema
from tests.component.experiments.grids import write_grid, write_search
from tests.end_to_end.programs import launch, succeed
from tests.end_to_end.test_experiment import begin, validations, wait_for


def without_test(folder: Path) -> None:
    """Remove the test split of a prepared folder, from its schema as well."""
    schema = Schema.load(folder)
    kept = {name: split for name, split in schema.splits.items() if name != "test"}
    digests = {name: digest for name, digest in schema.digests.items() if not name.startswith("test/")}
    shutil.rmtree(folder / "test")
    replace(schema, splits=kept, digests=digests).save(folder)


def test_a_search_is_interrupted_and_goes_on_without_the_test_split(prepared: Path, tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "search"
    shutil.copytree(prepared, data)
    without_test(data)
    longer = 'models.deepfm=["model=deepfm","trainer.epochs=30","trainer.early_stopping.patience=null"]'
    given = (longer, "trials=2", "startup_trials=1", "prune_after=1", "jobs=2")
    search = write_search(tmp_path, data)
    first = output / "deepfm" / "cove" / "trial_0000"
    begun = begin("tune", search, *given)
    wait_for(lambda: list(first.glob("checkpoints/step_*[0-9]")))
    begun.send_signal(signal.SIGINT)
    assert begun.wait(timeout=60) == 130
    trained = validations(first)
    done = launch("tune", str(search), *given)
    assert done.returncode == 0, done.stderr
    assert "4/4  deepfm/" in done.stderr
    assert validations(first) == list(range(1, 31)), "every epoch once"
    assert 0 < len(trained) < 30
    assert "Resumed from" in (first / "cell.log").read_text()
    rows = pq.read_table(output / "trials.parquet").to_pylist()
    assert sorted((row["quantizer"], row["trial"] == "trial_0000") for row in rows) == [
        ("cove", False), ("cove", True), ("none", False), ("none", True),
    ]  # fmt: skip
    [row] = [row for row in rows if (row["quantizer"], row["trial"]) == ("cove", "trial_0000")]
    records = map(json.loads, (first / "log.jsonl").read_text().splitlines())
    assert row["value"] == max(record["auc"] for record in records if record["kind"] == "validation")
    assert not list(output.glob("*/*/*/checkpoints")), "they served to resume"
    with sqlite3.connect(output / "study.db") as connection:
        assert connection.execute("select count(*) from studies").fetchone() == (2,)

    pairs = OmegaConf.load(output / "best.yaml").pairs.deepfm
    assert {pairs.none.trials, pairs.cove.trials} == {2}
    tuned = (f"tuned={output}/best.yaml", "tables_only=true", 'only=["deepfm/*"]')
    out = succeed("experiment", str(write_grid(tmp_path, prepared)), *tuned)
    assert "deepfm/cove/seed_2: missing" in out
    assert "Settings tuned by 2 trials each" in (tmp_path / "runs" / "tables.md").read_text()
    assert "4/4" not in launch("tune", str(search), *given).stderr, "nothing is left to do"


def test_trials_that_diverge_fail_and_are_never_the_best(prepared: Path, tmp_path: Path) -> None:
    search, folder = write_search(tmp_path, prepared), tmp_path / "search" / "deepfm" / "none"
    wide = ('only=["*/none"]', "space.all.rate.high=1e30", "starts=[{rate:1e30}]", "~space.all.units")
    out = succeed("tune", str(search), *wide, "trials=2")
    assert "best overrides" in out
    rows = pq.read_table(tmp_path / "search" / "trials.parquet").to_pylist()
    assert [row["state"] for row in rows] == ["complete", "failed"]
    assert re.match(r"loss not finite at step \d+ \(loss, task\): training diverged", rows[1]["reason"])
    best = OmegaConf.load(tmp_path / "search" / "best.yaml").pairs.deepfm.none
    assert best.overrides[0] == "trainer.optimizer.learning_rate=0.001"
    assert not (folder / "trial_0001" / "summary.json").exists()

    hopeless = (
        "output=" + str(tmp_path / "hopeless"),
        'models.deepfm=["model=deepfm","trainer.optimizer.learning_rate=1e30"]',
    )
    done = launch("tune", str(search), 'only=["*/none"]', *hopeless, "~space.all.rate", "trials=1")
    assert done.returncode == 2
    assert "deepfm/none: all 1 trials failed, so it has no best settings; the last with: loss not finite" in done.stderr
    assert not (tmp_path / "hopeless" / "best.yaml").exists()
