"""Validations within epochs, on 1 and 2 real ranks."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from cove_dist.inference.evaluate import evaluate_run
from cove_dist.runs import SUMMARY_FILE, read_json
from cove_dist.training.program import train
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks
from tests.distributed.test_signals import train_and_signal
from tests.distributed.test_training import train_until, training_losses

STILL = ("trainer.optimizer.learning_rate=1e-12", "embeddings.optimizer.learning_rate=1e-12")


def validations(folder: Path) -> dict[int, dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record for record in records if record["kind"] == "validation"}


@pytest.mark.parametrize(("world_size", "tables"), [(1, ()), (2, ROW_WISE)], ids=["one-rank", "two-ranks-sharded"])
def test_validations_leave_training_as_it_is_and_a_resumed_run_repeats_them(
    prepared: Path, tmp_path: Path, world_size: int, tables: tuple[str, ...]
) -> None:
    """Ten steps an epoch; killed after step 14, of which the last checkpoint is that of the validation at step 12."""
    run_ranks(world_size, train, small_run(prepared, tmp_path / "plain", *tables, *COVE))
    often = ("trainer.validate_every_steps=4", *tables, *COVE)
    run_ranks(world_size, train, small_run(prepared, tmp_path / "often", *often))
    assert training_losses(tmp_path / "often") == training_losses(tmp_path / "plain")
    plain, found = validations(tmp_path / "plain"), validations(tmp_path / "often")
    assert list(plain) == [10, 20]
    assert list(found) == [4, 8, 10, 12, 16, 20]
    assert [found[step] for step in plain] == list(plain.values())
    assert [record["epoch"] for record in found.values()] == [0, 0, 1, 1, 1, 2]

    killed = small_run(prepared, tmp_path / "killed", *often)
    with pytest.raises(AssertionError, match="died"):
        run_ranks(world_size, train_until, killed, 14)
    run_ranks(world_size, train, [*killed, "trainer.checkpoint.resume=auto"])
    assert validations(tmp_path / "killed") == found
    assert training_losses(tmp_path / "killed") == training_losses(tmp_path / "often")
    best = max(found, key=lambda step: (found[step]["auc"], -step))
    evaluated = evaluate_run([f"run={tmp_path / 'often'}", "split=validation", "device=cpu"])
    assert (evaluated.step, evaluated.metrics["auc"]) == (best, pytest.approx(found[best]["auc"], abs=1e-9))


def test_early_stopping_counts_validations(prepared: Path, tmp_path: Path) -> None:
    run_ranks(
        1,
        train,
        small_run(
            prepared, tmp_path / "run", *STILL, "trainer.validate_every_steps=3", "trainer.early_stopping.patience=2"
        ),
    )
    assert list(validations(tmp_path / "run")) == [3, 6, 9]
    summary = read_json(tmp_path / "run" / SUMMARY_FILE)
    assert (summary["step"], summary["epoch"], summary["validations_without_gain"]) == (9, 0, 2)


def test_ranks_validate_together_after_so_many_minutes(prepared: Path, tmp_path: Path) -> None:
    overrides = small_run(prepared, tmp_path / "run", "trainer.epochs=1", "trainer.validate_every_minutes=1e-9")
    run_ranks(2, train, overrides)
    steps = list(validations(tmp_path / "run"))
    assert steps == [4, 7, 10]  # requests are sent after every third step, and arrive one later


def test_a_signal_before_a_validation_leaves_it_to_the_resumed_run(prepared: Path, tmp_path: Path) -> None:
    often = ("trainer.validate_every_steps=4", "trainer.epochs=1")
    run_ranks(1, train, small_run(prepared, tmp_path / "whole", *often))
    stopped = small_run(prepared, tmp_path / "stopped", *often)
    [(code, _)] = run_ranks(1, train_and_signal, stopped, 0, signal.SIGTERM, 3)
    assert code == 0
    assert list(validations(tmp_path / "stopped")) == []
    run_ranks(1, train, [*stopped, "trainer.checkpoint.resume=auto"])
    assert validations(tmp_path / "stopped") == validations(tmp_path / "whole")
