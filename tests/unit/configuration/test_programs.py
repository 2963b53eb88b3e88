"""What the programs print for flags, keys that are not set or misspelt, and folders that are not there."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import pytest

from cove_dist import cli
from tests.configurations import small_run
from tests.unit.configuration.calling import Main, command, error_of

train, prepare, evaluate, compare = map(command, ("train", "prepare", "evaluate", "compare"))
cluster_items = command("cluster_items")
recommend, export, report, experiment, tune = map(command, ("recommend", "export", "report", "experiment", "tune"))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("-m", "-m: no such option; .*cove experiment"),
        ("--multirun", "--multirun: no such option; .*cove experiment"),
        ("--cfg", "--cfg: no such option; .*--print-config"),
        ("--cfg=job", "--cfg=job: no such option; .*--print-config"),
        ("--hydra-help", "--hydra-help: no such option; allowed: -h, --help, --print-config, --version"),
        ("--config-name=x", "--config-name=x: no such option"),
        ("--trainer.epochs=3", "--trainer.epochs=3: no such option; .*key=value, without dashes"),
        ("-5", "-5: no such option"),
    ],
)
@pytest.mark.parametrize("main", [train, experiment, evaluate])
def test_other_flags_are_refused_in_a_line(
    main: Main, flag: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(main, [flag], capsys)
    assert "\n" not in error
    assert re.match(message, error), error


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (evaluate, [], "run: not set: the run folder, as in run=runs/movielens_deepfm"),
        (export, [], "run: not set: the run folder, as in run="),
        (recommend, [], "run: not set: the run folder, as in run="),
        (report, [], "run: give the run folder as run=runs/a, or several as runs=[runs/a,runs/b]"),
        (compare, [], "runs: not set: a list of run folders, or a pattern, as in 'runs=runs/*'"),
        (cluster_items, [], "path: not set: the prepared folder, as in path=data/aotm"),
        (experiment, [], "title, output, models, quantizers, metrics: not set; give a grid file"),
        (tune, [], "title, output, models, quantizers: not set; give a search file"),
        (experiment, ["table4_movielans"], "table4_movielans: no such file, nor a shipped one; did you mean"),
        (tune, ["tune_movie"], "tune_movie: no such file, nor a shipped one; did you mean tune_movielens"),
        (evaluate, ["run="], "run = '': must not be empty"),
        (train, ["output="], "output = '': must not be empty"),
        (train, ["deepfm"], "deepfm: settings have the form key=value"),
        (prepare, ["log.csv"], "log.csv: settings have the form key=value, such as data=custom source=log.csv"),
        (train, ["experiment=typo"], "In 'train': Could not find 'experiment/typo'"),
        (train, ["experiment=toys_bprfm"], "In 'train': Could not find 'experiment/toys_bprfm'; did you mean"),
        (train, ["model=deepfn"], "In 'train': Could not find 'model/deepfn'; did you mean deepfm"),
        (train, ["trainer.epoch=3"], "trainer.epoch: unknown key; did you mean trainer.epochs"),
        (train, ["lists.softmax=full"], "lists.softmax: unknown key; did you mean sequential.softmax?"),
        (train, ["model=sasrec", "+lists.softmax=full"], "lists.softmax: unknown key; did you mean sequential.soft"),
        (train, ["omega_q=0.5"], "omega_q: unknown key; did you mean quantizer.omega_q?"),
        (train, ["+trainer.epoch=3"], "trainer.epoch: unknown key; did you mean trainer.epochs"),
    ],
)  # fmt: skip
def test_what_is_not_given_or_misspelt(
    main: Main, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(main, arguments, capsys).startswith(message)


def test_data_that_is_not_there_and_an_output_that_is_a_file(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (tmp_path / "nowhere", file):
        error = error_of(train, small_run(path, tmp_path / "run"), capsys)
        assert error.startswith(f"{path}/schema.json: no such file. Prepare the data first")
    assert str(file) in error_of(evaluate, [f"run={file}"], capsys)


def test_imports_are_not_interrupted_by_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    with cli.without_collection():
        assert gc.isenabled()  # torch is imported already: there is nothing to gain
    monkeypatch.delitem(sys.modules, "torch")
    with cli.without_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
