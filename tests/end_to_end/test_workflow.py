"""Prepare, train under torchrun, evaluate, resume, compare: on a small slice, by the programs themselves."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from tests.configurations import COVE, ROW_WISE, small_run
from tests.end_to_end.programs import launch, metrics_of, succeed
from tests.unit.evaluation.ties import expected


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workflow") / "data"
    out = succeed("prepare", "data=synthetic", f"output={folder}", "users=60", "items=80", "rows=3001")
    assert "samples" in out
    assert "3,001" in out
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COVE-DeepFM, trained by two ranks."""
    folder = tmp_path_factory.mktemp("workflow") / "run"
    succeed("train", *small_run(data, folder, *COVE, *ROW_WISE), ranks=2)
    return folder


def evaluated(run: Path, *arguments: str, ranks: int | None = None) -> dict[str, float | None]:
    succeed("evaluate", f"run={run}", "device=cpu", *arguments, ranks=ranks)
    return metrics_of(run)


def test_an_evaluation_of_another_split_or_checkpoint_has_a_file_of_its_own(run: Path) -> None:
    shown = {}
    for split in ("test", "validation"):
        for kind in ("best", "newest"):
            which = (f"split={split}", f"checkpoint={kind}", "save_predictions=true")
            shown[split, kind] = succeed("evaluate", f"run={run}", "device=cpu", *which)
    assert sorted(path.name for path in run.glob("metrics*")) == [
        "metrics_test_best.json", "metrics_test_newest.json",
        "metrics_validation_best.json", "metrics_validation_newest.json",
    ]  # fmt: skip
    assert sorted(path.name for path in run.glob("predictions*")) == [
        "predictions_test", "predictions_test_newest", "predictions_validation", "predictions_validation_newest",
    ]  # fmt: skip
    assert "validation split, newest checkpoint (step 20)" in shown["validation", "newest"]
    assert metrics_of(run, "validation")["auc"] != metrics_of(run, "test")["auc"]
    record = json.loads((run / "metrics_test_newest.json").read_text())
    assert (record["checkpoint"], record["step"], record["best_by"]) == ("step_00000020", 20, None)
    assert record["protocol"]["task"] == "ctr"
    table = succeed("compare", f"runs=[{run}]", "split=validation", "checkpoint=newest")
    assert "validation split, newest checkpoints" in table
    assert "step_00000020" in table


def test_a_run_folder_holds_what_other_tools_read(run: Path) -> None:
    assert OmegaConf.load(run / "config.yaml").quantizer.item_levels == [12, 4]
    kinds = {json.loads(line)["kind"] for line in (run / "log.jsonl").read_text().splitlines()}
    assert kinds == {"train", "codebooks", "validation"}
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["world_size"] == 2
    assert summary["samples_per_second"] > 0
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {"loss", "task", "quantization_item", "perplexity_item_1", "dead_user_2"} <= set(records[0])


def test_metrics_do_not_depend_on_the_number_of_ranks(run: Path) -> None:
    """The checkpoint of two row-wise ranks, loaded by one, two and four."""
    one = evaluated(run)
    for ranks in (2, 4):
        assert evaluated(run, ranks=ranks) == pytest.approx(one, abs=1e-6)


def test_metrics_equal_those_of_other_libraries_on_the_saved_predictions(run: Path) -> None:
    metrics = evaluated(run, "save_predictions=true", ranks=2)
    table = pq.read_table(run / "predictions_test")
    assert table.column_names == ["user", "item", "label", "score"]
    assert len(table) == metrics["samples"]
    labels, scores = (table[name].to_numpy().astype(np.float64) for name in ("label", "score"))
    assert abs(metrics["auc"] - roc_auc_score(labels, scores)) <= metrics["auc_error"] + 1e-6
    assert metrics["logloss"] == pytest.approx(log_loss(labels, scores), abs=1e-5)
    users = table["user"].to_numpy()
    ranked = [(labels[users == user], scores[users == user]) for user in np.unique(users)]
    ranked = [(own, of_rows) for own, of_rows in ranked if own.any()]
    several = [(own, of_rows) for own, of_rows in ranked if len(own) > 1]  # scikit-learn refuses a single row
    for k in (1, 5, 10):
        found = [ndcg_score([own], [of_rows], k=k) for own, of_rows in several]
        assert metrics[f"ndcg@{k}"] == pytest.approx((sum(found) + len(ranked) - len(several)) / len(ranked), abs=1e-6)
    hits = [expected(of_rows, own == 1, int(own.sum()), 5)["hr"] for own, of_rows in ranked]
    assert metrics["hr@5"] == pytest.approx(sum(hits) / len(hits), abs=1e-6)


def test_metrics_of_groups_equal_those_of_their_rows_in_the_files(run: Path, data: Path) -> None:
    out = succeed("evaluate", f"run={run}", "device=cpu", "save_predictions=true", ranks=2)
    assert re.search(r"items by training rows +┃ +q1 ┃ +q2 ┃ +q3 ┃ +q4 ┃ +never", out)
    assert re.search(r"│ auc +│ +0\.\d{4} │", out)
    assert "/" not in out
    metrics = metrics_of(run)
    predicted = pq.read_table(run / "predictions_test").to_pydict()
    labels, scores = np.array(predicted["label"]), np.array(predicted["score"])
    for entity in ("user", "item"):
        original = pq.read_table(data / "ids" / f"{entity}_id.parquet")["original_id"].to_pylist()
        counts = Counter(original[i] for i in pq.read_table(data / "train")[f"{entity}_id"].to_pylist())
        cuts = np.quantile(list(counts.values()), [0.25, 0.5, 0.75], method="inverted_cdf")
        of_row = np.array([counts[i] for i in predicted[entity]])
        places = np.where(of_row == 0, 4, np.searchsorted(cuts, of_row))
        for place, group in enumerate(("q1", "q2", "q3", "q4", "never")):
            rows = places == place
            assert metrics[f"samples/{entity}_{group}"] == rows.sum()
            auc = metrics[f"auc/{entity}_{group}"]
            if len(set(labels[rows])) < 2:
                assert auc is None
            else:
                bound = metrics[f"auc_error/{entity}_{group}"] + 1e-6
                assert abs(auc - roc_auc_score(labels[rows], scores[rows])) <= bound


def test_predictions_carry_the_original_ids(run: Path, data: Path) -> None:
    metrics = evaluated(run, "save_predictions=true", "by_frequency=false")
    assert not [name for name in metrics if "/" in name]
    predicted = pq.read_table(run / "predictions_test").to_pylist()
    original = {
        name: dict(
            zip(
                *(pq.read_table(data / "ids" / f"{name}_id.parquet")[c].to_pylist() for c in ("id", "original_id")),
                strict=True,
            )
        )
        for name in ("user", "item")
    }
    rows = pq.read_table(data / "test").to_pylist()
    expected = sorted((original["user"][r["user_id"]], original["item"][r["item_id"]], r["label"]) for r in rows)
    assert sorted((r["user"], r["item"], r["label"]) for r in predicted) == expected


def test_a_run_is_not_overwritten_and_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    arguments = small_run(data, tmp_path / "run", "trainer.epochs=1")
    succeed("train", *arguments, ranks=2)
    again = launch("train", *arguments, ranks=2)
    assert again.returncode != 0
    assert "already holds a run. Continue it with trainer.checkpoint.resume=auto" in again.stderr
    succeed("train", *arguments, "trainer.checkpoint.resume=auto", "trainer.epochs=2", ranks=2)
    validations = [
        record["epoch"]
        for record in map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
        if record["kind"] == "validation"
    ]
    assert validations == [1, 2]


def test_a_run_that_diverges_ends_with_the_step_and_saves_nothing(data: Path, tmp_path: Path) -> None:
    rates = ("trainer.optimizer.learning_rate=1e30", "embeddings.optimizer.learning_rate=1e30", *COVE)
    given = ("trainer.log_every=1000", "trainer.checkpoint.every_steps=4", "quantizer.start=kmeans")
    late = ("quantizer.kmeans_step=2", "quantizer.kmeans_batches=2")
    done = launch("train", *small_run(data, tmp_path / "run", *rates, *given, *late), ranks=2)
    assert done.returncode != 0
    assert re.search(
        r"error \(rank \d\): loss not finite at step 2 \(loss, .*\): training diverged\. Lower trainer", done.stderr
    )
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "summary.json").exists()


def test_comparison_of_runs_over_seeds(data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        succeed("train", *small_run(data, folder, "trainer.epochs=1", f"seed={seed}"))
        evaluated(folder)
    out = succeed("compare", f"runs={tmp_path}/seed*", f"json={tmp_path}/table.json")
    assert "samples/s" in out
    assert "DeepFM" in out
    assert "±" in out
    [record] = json.loads((tmp_path / "table.json").read_text())["records"]
    assert len(record["values"]["auc"]) == 2
    assert "auc/item_q1" not in record["values"]
    other = launch("compare", f"runs={tmp_path}/seed*", "checkpoint=newest")
    assert other.returncode == 2
    assert re.search(r"seed0/metrics_test_newest\.json: no such file; .*cove evaluate run=", other.stderr)


def test_debug_mode_is_short_shows_shapes_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    done = launch("train", *small_run(data, tmp_path / "run", *COVE, "trainer.debug=true"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"objective\.head\.mlp .*\[\d+, 16\] -> \[\d+, 8\]", done.stderr)
    assert len(re.findall(r"step \d+, train", done.stderr)) == 5
    assert not (tmp_path / "run").exists()


def test_dlrm_with_side_columns_from_ones_own_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 2000
    lines = ["uid,iid,weekday,age,stars,ts"]
    for i in range(rows):
        user, item = rng.integers(40), rng.integers(30)
        lines.append(f"u{user},{item},d{rng.integers(7)},{20 + user},{rng.integers(1, 6)},{i}")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    columns = ("user=uid", "item=iid", "label=null", "rating=stars", "threshold=4", "time=ts")
    further = ("categorical=[weekday]", "dense=[age]")
    succeed("prepare", "data=custom", f"source={tmp_path}/*.csv", *columns, *further, f"output={tmp_path}/data")
    small = small_run(tmp_path / "data", tmp_path / "run", "model=dlrm", "model.bottom_units=[8]", "trainer.epochs=1")
    succeed("train", *[o.replace("data=synthetic", "data=custom") for o in small], ranks=2)
    assert 0 < evaluated(tmp_path / "run")["auc"] < 1


@pytest.mark.parametrize("program", ["prepare", "train", "evaluate", "compare"])
def test_help_and_print_config(program: str) -> None:
    assert "usage:" in succeed(program, "--help")
    assert OmegaConf.create(succeed(program, "--print-config"))
