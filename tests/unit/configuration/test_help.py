"""Help, version, completion, and folders of one's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cove_dist
from cove_dist import cli
from cove_dist.commands import COMMANDS
from cove_dist.config.changes import RESUMABLE_PATTERNS
from cove_dist.config.yaml_files import keys
from cove_dist.config_folders import OWN_FOLDERS, config_folder
from cove_dist.tasks.configuration import compose_run_config
from tests.unit.configuration.calling import Main, command, error_of

train = command("train")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    train(["--version"])
    assert capsys.readouterr().out == f"cove_dist {cove_dist.__version__}\n"


def test_help_and_version_are_printed_by_one_rank(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    train(["--version"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("model", ["deepfm", "bprmf", "sasrec"])
def test_help_shows_every_key_with_its_comments(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    train(["--help", f"model={model}"])
    shown = capsys.readouterr().out
    for key in keys(compose_run_config([f"model={model}"])):
        of_logger = key.startswith("trainer.loggers.")  # chosen by a group of their own
        if key not in ("data.name", "trainer.early_stopping.mode") and not of_logger:
            assert re.search(rf"^ +{key.rpartition('.')[2]}: ?", shown, flags=re.MULTILINE), key
    assert "experiment: aotm_bert4rec, " in shown
    assert "# maximum number of optimizer steps; null: no limit" in shown


def test_help_of_a_group_shows_all_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    train(["quantizer", "--help"])
    shown = capsys.readouterr().out
    assert [line.strip() for line in shown.splitlines() if line.startswith("  quantizer=")] == [
        f"quantizer={path.stem}" for path in sorted((config_folder() / "quantizer").glob("*.yaml"))
    ]
    assert "seed:" not in shown


@pytest.mark.parametrize(
    ("main", "argument", "message"),
    [
        (train, "modl", "modl: no group of settings; did you mean model? Allowed: data, model, quantizer"),
        (train, "trainer.early_stopping", "trainer.early_stopping: no group of settings; did you mean trainer?"),
        (command("compare"), "nothing", "nothing: no group of settings. This command has none"),
    ],
)
def test_help_of_what_is_no_group_is_refused(
    main: Main, argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(main, ["--help", argument], capsys).startswith(message)


def test_help_of_every_command_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        cli.main([name, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: cove {name}")
    cli.main(["grid", "--help"])
    assert capsys.readouterr().out.startswith("usage: cove experiment")
    cli.main([])
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_a_command_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(cli.main, ["trian", "model=deepfm"], capsys)
    assert error.startswith("trian: no such command; did you mean train? Commands: prepare, plan, train, ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cove tra", ["train"]),
        ("cove train model=dee", ["model=deepfm"]),
        ("cove train qu", ["quantizer="]),
        ("cove tune tune_t", ["tune_toys"]),
        ("cove doctor mo", []),
    ],
)
def test_completion(line: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", "words", line])
    assert capsys.readouterr().out.split() == expected


def test_a_folder_of_ones_own_that_is_missing_or_takes_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OWN_FOLDERS, "")
    assert "no such folder" in error_of(train, ["--config-dir", str(tmp_path / "nowhere")], capsys)
    monkeypatch.setenv(OWN_FOLDERS, "")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "deepfm.yaml").write_text("_target_: mine.Mine\n")
    error = error_of(train, [f"--config-dir={tmp_path}"], capsys)
    assert error.endswith("model/deepfm.yaml: this name is taken; choose another")


def test_help_with_prepared_data_shows_what_other_data_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.json").touch()
    cli.main(["train", f"data={tmp_path}", "--help"])
    assert "settings, with their defaults:" in capsys.readouterr().out


def test_the_page_on_runs_names_every_setting_that_a_resumed_run_may_change() -> None:
    page = (Path(__file__).parents[3] / "docs" / "runs.md").read_text()
    listed = page.partition("## What a resumed run may change")[2]
    assert [name for name in RESUMABLE_PATTERNS if f"`{name}`" not in listed] == []


@pytest.mark.parametrize(
    "name", [name for name, command in COMMANDS.items() if command.config and not command.on_ranks]
)
def test_a_command_of_one_process_is_refused_on_several(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would all do the whole work, and write the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    error = error_of(cli.main, [name], capsys)
    assert f"cove {name}: is one process; run it without torchrun, which is for train, evaluate" in error
