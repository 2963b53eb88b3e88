"""What the programs print for flags, keys that are not set, and files that are not what they should be."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import cove_dist
from cove_dist.config.composition import compose_yaml
from launch import cli, cluster_items, compare, evaluate, experiment, export_codes, recommend, report, train, tune
from tests.configurations import small_run

Main = Callable[[list[str]], None]


class Ended(Exception):
    """Takes the place of the end of the process."""


@pytest.fixture(autouse=True)
def no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(cli.os, "_exit", end)


def error_of(main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one message that a program ends with."""
    with pytest.raises(Ended, match="2"):
        main(arguments)
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    return printed.err.removeprefix("error: ").rstrip("\n")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    train.main(["--version"])
    assert capsys.readouterr().out == f"cove_dist {cove_dist.__version__}\n"


def test_help_and_version_are_printed_by_one_rank(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    train.main(["--version"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("model", ["deepfm", "bprmf", "sasrec"])
def test_help_shows_every_key_with_its_default(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(["--help", f"model={model}"])
    shown = capsys.readouterr().out
    config = OmegaConf.to_yaml(compose_yaml("train", [f"model={model}"]))
    assert all(f"  {line}" in shown for line in config.splitlines())
    assert "experiment: aotm_bert4rec, " in shown


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("-m", "-m: no such option; .*launch/experiment.py"),
        ("--multirun", "--multirun: no such option; .*launch/experiment.py"),
        ("--cfg", "--cfg: no such option; .*--print-config"),
        ("--cfg=job", "--cfg=job: no such option; .*--print-config"),
        ("--hydra-help", "--hydra-help: no such option; allowed: -h, --help, --print-config, --version"),
        ("--config-name=x", "--config-name=x: no such option"),
        ("--trainer.epochs=3", "--trainer.epochs=3: no such option; .*key=value, without dashes"),
        ("-5", "-5: no such option"),
    ],
)
@pytest.mark.parametrize("main", [train.main, experiment.main, evaluate.main])
def test_other_flags_are_refused_in_a_line(
    main: Main, flag: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(main, [flag], capsys)
    assert "\n" not in error
    assert re.match(message, error), error


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (evaluate.main, [], "run: not set: the run folder, as in run=runs/movielens_deepfm"),
        (export_codes.main, [], "run: not set: the run folder, as in run="),
        (recommend.main, [], "run: not set: the run folder, of a model of collaborative filtering, as in run="),
        (report.main, [], "run: not set: the run folder, as in run="),
        (compare.main, [], "runs: not set: a list of run folders, or a pattern, as in 'runs=runs/*'"),
        (cluster_items.main, [], "path: not set: the prepared folder, as in path=data/aotm"),
        (experiment.main, [], "title, output, models, quantizers, metrics: not set; give a grid file"),
        (tune.main, [], "title, output, models, quantizers: not set; give a search file"),
        (experiment.main, ["table4_movielans"], "table4_movielans: no such file, nor a shipped one; did you mean"),
        (tune.main, ["tune_movie"], "tune_movie: no such file, nor a shipped one; did you mean tune_movielens"),
        (evaluate.main, ["run="], "run = '': must not be empty"),
        (train.main, ["output="], "output = '': must not be empty"),
        (train.main, ["deepfm"], "deepfm: settings have the form key=value"),
        (train.main, ["experiment=typo"], "In 'train': Could not find 'experiment/typo'"),
        (train.main, ["experiment=toys_bprfm"], "In 'train': Could not find 'experiment/toys_bprfm'; did you mean"),
        (train.main, ["model=deepfn"], "In 'train': Could not find 'model/deepfn'; did you mean deepfm"),
        (train.main, ["trainer.epoch=3"], "trainer.epoch: unknown key; did you mean trainer.epochs"),
        (train.main, ["+trainer.epoch=3"], "trainer.epoch: unknown key; did you mean trainer.epochs"),
    ],
)  # fmt: skip
def test_what_is_not_given_or_misspelt(
    main: Main, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(main, arguments, capsys).startswith(message)


DATA = b"data: {name: x, path: y}\n"


def test_a_key_of_a_grid_file_that_is_misspelt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "2026.yaml").write_text("title: t\nmodles: {}\n")
    assert error_of(experiment.main, [f"{tmp_path}/2026.yaml"], capsys).startswith(
        "modles: unknown key; did you mean models"
    )


BROKEN = {
    "not YAML": (b"a: [1, 2", "not YAML"),
    "a list": (b"- a\n- b\n", "holds no mapping"),
    "text": (b"only text", "data: missing"),
    "binary": (bytes(range(128, 256)), "not YAML"),
    "empty": (b"", "data: missing"),
    "without a section": (DATA + b"model: {_target_: cove_dist.models.ctr.dcn.DCN}\n", "embeddings: missing"),
    "without a model": (DATA, "model: missing"),
    "of another class": (DATA + b"model: {_target_: no.such.Class}\n", "model._target_ = no.such.Class"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("main", [evaluate.main, export_codes.main])
def test_a_configuration_of_a_run_that_is_broken(
    main: Main, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BROKEN[fault]
    (tmp_path / "config.yaml").write_bytes(content)
    error = error_of(main, [f"run={tmp_path}"], capsys)
    assert error.startswith(f"{tmp_path}/config.yaml: ")
    assert message in error


SCHEMAS = {
    "not JSON": b"{",
    "binary": bytes(range(128, 256)),
    "a list": b"[]",
    "empty": b"",
    "without keys": b"{}",
}


@pytest.mark.parametrize("fault", SCHEMAS)
def test_a_schema_that_is_broken(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "schema.json").write_bytes(SCHEMAS[fault])
    error = error_of(train.main, small_run(tmp_path, tmp_path / "run"), capsys)
    assert error.startswith(f"{tmp_path}/schema.json: not a valid schema: ")
    assert "\n" not in error
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_and_an_output_that_is_a_file(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (tmp_path / "nowhere", file):
        error = error_of(train.main, small_run(path, tmp_path / "run"), capsys)
        assert error.startswith(f"{path}/schema.json: no such file. Prepare the data first")
    assert str(file) in error_of(evaluate.main, [f"run={file}"], capsys)


def test_a_run_in_a_folder_with_an_odd_name(prepared: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "dätä, [1] a=b", tmp_path / "it's a run, ä=[2]"
    shutil.copytree(prepared, data)
    train.main(small_run(data, run, "trainer.max_steps=2", "trainer.epochs=1"))
    assert OmegaConf.load(run / "config.yaml").data.path == str(data)
    evaluate.main([f"run={run}", "device=cpu"])
    assert [json.loads(path.read_text())["split"] for path in run.glob("metrics*.json")] == ["test"]
