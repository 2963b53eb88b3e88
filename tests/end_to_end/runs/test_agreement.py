"""Saves by time, and what a step boundary decides."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cove_dist import cli
from cove_dist.distributed import process_group
from cove_dist.faults.agreement import Agreement, Decision
from cove_dist.faults.signals import Interrupted, StopRequest, deferred_signals, named_signals
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import COVE, small_run


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """Tests may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_save_is_due_by_time_and_the_wish_during_a_save_is_met_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    agreement = Agreement(StopRequest(), every_minutes=1.0)
    assert agreement.after_step(1) == Decision()
    now = 161.0
    assert agreement.after_step(2) == Decision(), "the wish reaches the other ranks during the next step"
    assert agreement.after_step(3) == Decision(save=True)
    agreement.note_saved(3)
    assert agreement.after_step(4) == Decision(), "what step 3 wanted"
    assert agreement.after_step(5) == Decision()


def test_a_run_without_intervals_saves_by_time(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = load_run_config(small_run(prepared, "unused", "trainer.checkpoint.every_minutes=1e-9"))
    saved, save = [], TrainingLoop.save

    def watched(self: TrainingLoop, *arguments: Any) -> None:
        saved.append(self.progress.step)
        save(self, *arguments)

    monkeypatch.setattr(TrainingLoop, "save", watched)
    with process_group("cpu") as context:
        Trainer(config, Schema.load(prepared), context).train(tmp_path)
    assert saved == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20], "10 and 20 are the ends of the epochs"


def test_signals_are_noted_once_and_a_late_second_ctrl_c_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred_signals() as request:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # torchrun repeats what the terminal sent
        assert request.number == signal.SIGINT
        later = time.monotonic() + 10
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def end(code: int) -> None:
    raise SystemExit(code)


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        ("train", signal.SIGTERM, 0),  # the same command resumes: no failure for a scheduler
        ("train", signal.SIGINT, 130),
        ("evaluate", signal.SIGTERM, 143),
        ("export", signal.SIGINT, 130),
        ("tune", signal.SIGHUP, 129),
    ],
)
def test_a_program_says_one_line_and_ends_with_the_code_of_the_signal(
    command: str, number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # torchrun repeats it while files are removed

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(cli, "_module", lambda _: SimpleNamespace(run=run))
    with pytest.raises(SystemExit) as ended:
        cli.main([command])
    assert ended.value.code == code
    line = f"{signal.Signals(number).name}: cove {command} stopped before its end"
    assert capsys.readouterr().err.splitlines() == [line]
    assert issubclass(Interrupted, KeyboardInterrupt), "no `except Exception` swallows it"


def test_a_later_signal_interrupts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted, match="SIGTERM"), named_signals("stopped"):
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
        later = time.monotonic() + 10
        monkeypatch.setattr(time, "monotonic", lambda: later)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred_signals() as request, named_signals("stopped"):
            os.kill(os.getpid(), signal.SIGHUP)
        assert request.number == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_process_saves_on_sigterm_and_goes_on_where_it_was(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step = TrainingLoop.after_step

    def signalled(self: TrainingLoop, *arguments: Any) -> None:
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        after_step(self, *arguments)

    monkeypatch.setattr(TrainingLoop, "after_step", signalled)
    overrides = small_run(prepared, tmp_path / "run", "trainer.epochs=1")
    with pytest.raises(
        Interrupted, match=r"SIGTERM: stopped at step 4; saved .*step_00000004\. Continue with "
    ) as stop:
        train(overrides)
    assert stop.value.exit_code == 0
    train([*overrides, "trainer.checkpoint.resume=auto"])
    steps = [record["step"] for record in read_records(tmp_path / "run" / LOG_FILE) if record["kind"] == "train"]
    assert steps == list(range(1, 11))


def test_a_signal_in_a_validation_stops_it_and_the_resumed_run_repeats_it(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs have 10 steps and validations several batches."""
    train(small_run(prepared, tmp_path / "whole", "trainer.epochs=2", *COVE))
    validated: list[int] = []
    after_batch = Agreement.after_batch

    def signalled(self: Agreement, batch: int) -> None:
        validated.append(batch)
        if len(validated) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        after_batch(self, batch)

    monkeypatch.setattr(Agreement, "after_batch", signalled)
    overrides = small_run(prepared, tmp_path / "run", "trainer.epochs=2", *COVE)
    with pytest.raises(Interrupted, match=r"SIGTERM: stopped at step 10; saved .*step_00000010\. Continue with "):
        train(overrides)
    assert validated == [1, 2], "the batch of the signal, and the next, by which all ranks know of it"
    train([*overrides, "trainer.checkpoint.resume=auto"])
    assert validated.count(1) == 3
    logs = [read_records(tmp_path / name / LOG_FILE) for name in ("whole", "run")]
    whole, resumed = (
        [{k: v for k, v in r.items() if not k.endswith(("_mb", "_per_second"))} for r in log] for log in logs
    )
    assert resumed == whole


def test_no_signal_ends_the_validation_after_the_last_step(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run would have no step left, and would not repeat the validation."""

    def signalled(self: Trainer) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self)

    evaluate = Trainer.evaluate
    monkeypatch.setattr(Trainer, "evaluate", signalled)
    with pytest.raises(Interrupted, match="SIGTERM: the run was complete, at step 3"):
        train(small_run(prepared, tmp_path / "run", "trainer.max_steps=3"))
    assert read_records(tmp_path / "run" / LOG_FILE)[-1]["kind"] == "validation"
