"""A loss, a metric and a logger of one's own, in another folder: from training to evaluation and report."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cove_dist.runs import read_records
from tests import interactions
from tests.configurations import small_run
from tests.fork_server import executable

MODULE = """
import torch

from cove_dist.evaluation.declarations import Family, declares
from cove_dist.evaluation.own import ListMetric, SampleMetric
from cove_dist.loggers.base import Logger
from cove_dist.losses.ctr import CTRLoss
from cove_dist.losses.pairs import PairLoss
from cove_dist.types import PositiveFloat


class SquaredError(CTRLoss):
    def __init__(self, *, scale: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits, labels):
        return self.scale * (logits.sigmoid() - labels).square()


class Hinge(PairLoss):
    def forward(self, positives, negatives):
        return torch.relu(1 - positives.unsqueeze(1) + negatives).mean(dim=1)


@declares(Family("error", "absolute error", higher_is_better=False))
class AbsoluteError(SampleMetric):
    def values(self, logits, labels):
        return (logits.sigmoid() - labels).abs()


@declares(Family("found", "items found", "ndcg_at"))
class Found(ListMetric):
    def values(self, positions, positives, k):
        return positions.found(k)


class Lines(Logger):
    def __init__(self, *, name: str) -> None:
        self.name = name

    def start(self, run):
        self.file = (run.folder / self.name).open("a")

    def log(self, kind, step, epoch, metrics):
        print(kind, step, sorted(metrics), file=self.file)

    def close(self, *, failed):
        print("failed" if failed else "done", file=self.file)
        self.file.close()
"""
GROUPS = {
    "loss/squared": "_target_: mine.SquaredError\nscale: 2.0\n",
    "loss/hinge": "_target_: mine.Hinge\n",
    "metric/error": "# @package evaluation.metrics.error\n_target_: mine.AbsoluteError\n",
    "metric/found": "# @package evaluation.metrics.found\n_target_: mine.Found\n",
    "logger/lines": "# @package trainer.loggers.lines\n_target_: mine.Lines\nname: lines.txt\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    for name, text in GROUPS.items():
        path = tmp_path / "groups" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def cove(folder: Path, command: str, *arguments: str) -> str:
    line = [executable(), "-m", "cove_dist", command, "allow_targets=[mine]", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def validation(folder: Path) -> dict[str, float]:
    return next(each for each in read_records(folder / "run/log.jsonl") if each["kind"] == "validation")


def evaluated(folder: Path) -> dict[str, float]:
    return json.loads((folder / "run/metrics_test_best.json").read_text())["metrics"]


def test_of_a_click_through_rate_model(folder: Path, prepared: Path) -> None:
    chosen = ["--config-dir=groups", "loss=squared", "metric=[brier,error]", "logger=lines"]
    watched = ["trainer.early_stopping.metric=error", "trainer.epochs=1", "loss.scale=3.0"]
    cove(folder, "train", *chosen, *small_run(prepared, "run"), *watched)
    assert {"loss", "task"} <= read_records(folder / "run/log.jsonl")[0].keys()
    found = validation(folder)
    assert 0 < found["brier"] <= found["error"] < 1  # squares of numbers below 1
    first = read_records(folder / "run/log.jsonl")[0]
    assert first["task"] == pytest.approx(3 * 0.25, abs=0.05)  # 3 (1/2 - y)² for logits near 0
    lines = (folder / "run/lines.txt").read_text().splitlines()
    assert lines[0].startswith("train 1 ") and "'error'" in lines[-2] and lines[-1] == "done"
    assert not (folder / "run/tensorboard").exists()
    cove(folder, "evaluate", "run=run", "device=cpu")
    assert 0 < evaluated(folder)["error"] < 1 and "error/item_q1" in evaluated(folder)
    assert json.loads((folder / "run/metrics_test_best.json").read_text())["best_by"] == "error"
    assert f"{evaluated(folder)['error']:.4f}" in cove(folder, "compare", "runs=run")
    cove(folder, "report", "run=run")
    assert "best by absolute error" in (folder / "run/report/report.html").read_text()


def test_of_collaborative_filtering(folder: Path) -> None:
    data = interactions.prepare_small(folder)
    small = [*interactions.SMALL_RUN, f"data.path={data}", "output=run", "trainer.epochs=1", "model=bprmf"]
    chosen = ["--config-dir=groups", "loss=hinge", "metric=[precision,found]", "logger=lines"]
    cove(folder, "train", *chosen, *small, "trainer.early_stopping.metric=full_found@10")
    assert read_records(folder / "run/log.jsonl")[0]["rank"] == pytest.approx(1, abs=0.01)  # all scores are near 0
    found = validation(folder)
    assert found["precision@10"] == pytest.approx(found["recall@10"] / 10)  # one positive a row
    assert found["found@10"] == pytest.approx(found["recall@10"])
    cove(folder, "evaluate", "run=run", "device=cpu", "by_frequency=false")
    assert {"full_precision@3", "full_found@5"} <= evaluated(folder).keys()
