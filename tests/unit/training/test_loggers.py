"""Loggers: what they are given, what their errors do, and what services record."""

from __future__ import annotations

import importlib.machinery
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cove_dist.errors import ConfigError, DiskFullError, LoggerError
from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.loggers.base import LoggedRun, Logger
from cove_dist.loggers.group import Loggers, resolve_loggers
from cove_dist.loggers.mlflow import MLflow
from cove_dist.loggers.wandb import WeightsAndBiases
from cove_dist.tasks.configuration import load_run_config


class Recorded(Logger):
    """Notes its calls; raises in those of a method."""

    def __init__(self, raises: str = "", error: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self._raises, self._error = raises, error or ConnectionError("no network")

    def _note(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        if name == self._raises:
            raise self._error

    def start(self, run: LoggedRun) -> None:
        self._note("start", run.first_step)

    def log(self, kind: str, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self._note("log", kind, step, epoch, dict(metrics))

    def close(self, *, failed: bool) -> None:
        self._note("close", failed)


def group(folder: Path, on_error: Any = "warn", disk: Any = "stop", **loggers: Logger) -> Loggers:
    return Loggers(loggers, LoggedRun(folder, 3, {}), on_error, FullDiskPolicy(disk))


def test_an_error_is_warned_of_once_and_concerns_no_other_logger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = Recorded("log"), Recorded()
    loggers = group(tmp_path, bad=bad, good=good)
    for step in (4, 5):
        loggers.log("train", step, 0, {"loss": 0.5})
    loggers.close(failed=True)
    expected = [("start", 3), ("log", "train", 4, 0, {"loss": 0.5}), ("log", "train", 5, 0, {"loss": 0.5})]
    assert bad.calls == good.calls == [*expected, ("close", True)]
    [warning] = caplog.messages
    assert "trainer.loggers.bad (Recorded) failed: ConnectionError: no network. Training goes on" in warning


def test_a_logger_that_cannot_start_is_not_called_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = Recorded("start")
    loggers = group(tmp_path, bad=bad)
    loggers.log("train", 4, 0, {})
    loggers.close(failed=False)
    assert bad.calls == [("start", 3)]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("raises", ["start", "log", "close"])
def test_an_error_stops_the_run_where_that_is_wanted(raises: str, tmp_path: Path) -> None:
    with pytest.raises(LoggerError, match=r"trainer\.loggers\.bad .*no network.*on_logger_error=warn"):
        loggers = group(tmp_path, "stop", bad=Recorded(raises))
        loggers.log("train", 4, 0, {})
        loggers.close(failed=False)


def test_a_full_disk_has_its_own_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = OSError(28, "No space left on device")
    with pytest.raises(DiskFullError):
        group(tmp_path, bad=Recorded("log", full)).log("train", 4, 0, {})
    bad = Recorded("log", full)
    loggers = group(tmp_path, "stop", "warn", bad=bad)
    for step in (4, 5):
        loggers.log("train", step, 0, {})
    assert [call[0] for call in bad.calls] == ["start", "log"]
    assert "no more metrics for the logger bad; log.jsonl has them" in caplog.text


def test_settings_of_loggers_are_checked_before_training() -> None:
    for overrides, message in {
        ("+trainer.loggers.mine._target_=cove_dist.losses.pairs.BPR",): r"allowed: logger=mlflow, .*subclasses of",
        ("+trainer.loggers.mine._target_=os.path.join",): r"mine\._target_ = os\.path\.join: is not imported",
        ("+trainer.loggers.tensorboard.speed=3",): r"trainer\.loggers\.tensorboard\.speed: unknown key",
        ("logger=none", "trainer.on_logger_error=stop"): "there are no loggers",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_run_config(overrides)
    assert load_run_config(["logger=none"])[0].trainer.loggers == {}
    assert load_run_config(["trainer.loggers.tensorboard=null"])[0].trainer.loggers == {"tensorboard": None}


@pytest.mark.parametrize(("module", "target"), [("wandb", "wandb.WeightsAndBiases"), ("mlflow", "mlflow.MLflow")])
def test_a_missing_package_is_named_with_its_extra(module: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs {module}, .*pip install 'cove-dist\[{module}\]'"):
        resolve_loggers({"mine": {"_target_": f"cove_dist.loggers.{target}"}})
    assert resolve_loggers({"mine": None}) == {}


class Calls:
    """An object whose methods note their names and arguments, and return what is given by name."""

    def __init__(self, **returned: Any) -> None:
        self.noted: list[tuple[str, tuple, dict]] = []
        self._returned = returned

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.noted.append((name, arguments, named))
            return self._returned.get(name)

        return call

    def of(self, name: str) -> list[tuple[tuple, dict]]:
        return [(arguments, named) for called, arguments, named in self.noted if called == name]


def module(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(made).update(attributes)
    monkeypatch.setitem(sys.modules, name, made)


def test_weights_and_biases_continues_the_run_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Calls()
    service.id = "abc"
    starts: list[dict] = []

    def init(**arguments: Any) -> Calls:
        starts.append(arguments)
        return service

    module(monkeypatch, "wandb", init=init)
    for first_step in (0, 8):
        logger = WeightsAndBiases(project="mine", mode="offline", tags=("a",))
        logger.start(LoggedRun(tmp_path, first_step, {"seed": 3}))
        logger.log("validation", first_step + 1, 1, {"ndcg@10": 0.5, "auc": math.nan})
        logger.close(failed=first_step > 0)
    assert [(each["id"], each["resume"]) for each in starts] == [(None, None), ("abc", "allow")]
    shared = {"project": "mine", "mode": "offline", "tags": ["a"], "config": {"seed": 3}, "name": tmp_path.name}
    assert shared.items() <= starts[0].items()
    [logged] = service.of("log")[0][0]
    assert math.isnan(logged.pop("validation/auc"))
    assert logged == {"step": 1, "epoch": 1, "validation/ndcg@10": 0.5}
    assert [named["exit_code"] for _, named in service.of("finish")] == [0, 1]


def test_mlflow_continues_the_run_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Calls(create_experiment="7", create_run=SimpleNamespace(info=SimpleNamespace(run_id="r1")))
    module(monkeypatch, "mlflow", MlflowClient=lambda uri: client)
    module(monkeypatch, "mlflow.entities", Metric=lambda *values: values, Param=lambda *values: values)
    for first_step in (0, 8):
        logger = MLflow(tracking_uri="folder", experiment="mine")
        logger.start(LoggedRun(tmp_path, first_step, {f"key_{i}": i for i in range(150)}))
        logger.log("validation", first_step + 1, 1, {"ndcg@10": 0.5})
        logger.close(failed=first_step > 0)
    assert client.of("create_run") == [(("7",), {"run_name": tmp_path.name})]
    parameters = [named["params"] for _, named in client.of("log_batch") if named]
    assert [len(part) for part in parameters] == [100, 50]
    metrics = [arguments for arguments, named in client.of("log_batch") if not named]
    assert [(name, value, step) for name, value, _, step in metrics[0][1]] == [
        ("epoch", 1.0, 1), ("validation/ndcg_at_10", 0.5, 1)
    ]  # fmt: skip
    assert client.of("set_terminated") == [(("r1", "FINISHED"), {}), (("r1", "FAILED"), {})]
