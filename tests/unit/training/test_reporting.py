"""The record of a run."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.loggers.base import LoggedRun, tag
from cove_dist.loggers.group import Loggers
from cove_dist.loggers.tensorboard import TensorBoard
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.training.reporting import Reporter


def report(folder: Path, first_step: int, steps: range, scale: float) -> None:
    run, policy = LoggedRun(folder, first_step, {}), FullDiskPolicy()
    loggers = Loggers({"tensorboard": TensorBoard()}, run, "stop", policy)
    reporter = Reporter(folder, True, first_step, 100, 3, policy, loggers)
    for step in steps:
        reporter.record("train", step, 0, {"loss": scale * step})
    reporter.close()


def test_a_resumed_run_replaces_the_records_after_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(tmp_path, 0, range(1, 6), 1.0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2)  # TensorBoard orders its files by the second
    report(tmp_path, 3, range(4, 7), 10.0)
    records = read_records(tmp_path / LOG_FILE)
    assert [record["loss"] for record in records] == [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in board.Scalars("loss/loss")] == [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]


def test_a_metric_that_is_not_defined_is_null_in_the_log_and_nan_when_read(tmp_path: Path) -> None:
    report(tmp_path, 0, range(1, 3), math.nan)
    report(tmp_path, 1, range(2, 3), math.inf)  # a resumed run writes the kept records again
    lines = (tmp_path / LOG_FILE).read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["loss"] for line in lines] == [None, None]
    assert all(math.isnan(record["loss"]) for record in read_records(tmp_path / LOG_FILE))


def test_a_rank_that_is_not_visible_says_and_writes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        reporter = Reporter(None, False, 0, 10, 1)
        reporter.record("train", 1, 0, {"loss": 1.0})
        reporter.close()
    assert not caplog.records
    assert not list(tmp_path.iterdir())


def test_a_torn_last_line_is_dropped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report(tmp_path, 0, range(1, 3), 1.0)
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"kind": "train", "step": 3, "epo')
    assert [record["step"] for record in read_records(tmp_path / LOG_FILE)] == [1, 2]
    report(tmp_path, 2, range(3, 4), 1.0)
    assert "dropping its last line, which is incomplete" in caplog.text
    assert [record["step"] for record in read_records(tmp_path / LOG_FILE)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("train", "loss", "loss/loss"),
        ("train", "quantization_item", "loss/quantization_item"),
        ("train", "perplexity_item_1", "codes/item/level_1/perplexity"),
        ("train", "revived_user_2", "codes/user/level_2/revived"),
        ("codebooks", "dead_item_2", "codes_of_epoch/item/level_2/dead"),
        ("train", "samples_per_second", "speed/samples_per_second"),
        ("train", "learning_rate_tables", "lr/tables"),
        ("train", "gradient_norm", "gradients/gradient_norm"),
        ("train", "resident_mb", "memory/resident_mb"),
        ("validation", "ndcg@10", "validation/ndcg@10"),
    ],
)
def test_tags_are_grouped_by_what_they_measure(kind: str, name: str, expected: str) -> None:
    assert tag(kind, name) == expected


def test_a_line_says_the_epoch_and_keeps_name_and_value_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        reporter = Reporter(tmp_path, True, 0, 10, 3)
        reporter.record("train", 1, 0, {"loss": 0.5, "samples_per_second": 12345.6}, shown={"best": 0.25})
        reporter.record("validation", 4, 1, {"auc": 0.75})
        reporter.close()
    assert caplog.messages == [
        "epoch 1/3, step 1, train: loss=0.5  samples_per_second=12,346  best=0.25",
        "epoch 1/3, step 4, validation: auc=0.75",
    ]
    assert "best" not in read_records(tmp_path / LOG_FILE)[0]
