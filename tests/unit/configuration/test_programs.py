"""What the programs print for flags, keys that are not set, and files that are not what they should be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import cove_dist
from cove_dist import cli
from cove_dist.commands import COMMANDS
from cove_dist.config.composition import keys
from cove_dist.config_folders import OWN_FOLDERS, config_folder
from cove_dist.tasks.configuration import compose_run_config
from tests.configurations import small_run
from tests.warm import executable

Main = Callable[[list[str]], None]


def command(name: str) -> Main:
    return lambda arguments: cli.main([name, *arguments])


train, evaluate, compare, cluster_items = map(command, ("train", "evaluate", "compare", "cluster_items"))
recommend, export, report, experiment, tune = map(command, ("recommend", "export", "report", "experiment", "tune"))


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
        if key not in ("data.name", "trainer.early_stopping.mode"):
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
    assert error.startswith("trian: no such command; did you mean train? Commands: prepare, train, ")


def test_help_version_and_completion_import_neither_torch_nor_hydra() -> None:
    script = """
import sys
from cove_dist.cli import main
for line in ("", "--version", "train --help", "train --help model", "completion bash", "doctor --help"):
    main(line.split())
assert not {"torch", "hydra", "pyarrow", "pydantic"} & set(sys.modules), sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


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


def test_the_script_of_bash_completes_a_word_with_an_equals_sign() -> None:
    script = f"""
cove() {{ "{sys.executable}" -m cove_dist "$@"; }}
eval "$(cove completion bash)"
compopt() {{ :; }}
COMP_LINE="cove train quantizer=cove_i"; COMP_POINT=${{#COMP_LINE}}
_cove; echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "cove_items\n"


MINE = """
from cove_dist.models.ctr.base import CTRHead

class Mine(CTRHead):
    def __init__(self, num_fields: int, embedding_dim: int, num_dense: int, *, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, fields, dense):
        return self.scale * fields.prod(dim=1).sum(dim=1)
"""


def test_a_model_of_ones_own_outside_the_package(prepared: Path, tmp_path: Path) -> None:
    """The class is in the current folder, its YAML in another; the run is evaluated without that folder."""
    (tmp_path / "mine_head.py").write_text(MINE)
    (tmp_path / "groups" / "model").mkdir(parents=True)
    (tmp_path / "groups" / "model" / "mine.yaml").write_text("_target_: mine_head.Mine\nscale: 2.0\n")
    settings = [o for o in small_run(prepared, Path("run"), "trainer.max_steps=2") if not o.startswith("model")]
    for arguments in (
        ["train", "--config-dir=groups", "model=mine", "allow_targets=[mine_head]", *settings],
        ["evaluate", "run=run", "device=cpu", "allow_targets=mine_head"],
    ):
        subprocess.run([executable(), "-m", "cove_dist", *arguments], check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "metrics_test_best.json").read_text())["metrics"]["auc"] is not None


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
        (report, [], "run: not set: the run folder, as in run="),
        (compare, [], "runs: not set: a list of run folders, or a pattern, as in 'runs=runs/*'"),
        (cluster_items, [], "path: not set: the prepared folder, as in path=data/aotm"),
        (experiment, [], "title, output, models, quantizers, metrics: not set; give a grid file"),
        (tune, [], "title, output, models, quantizers: not set; give a search file"),
        (experiment, ["table4_movielans"], "table4_movielans: no such file, nor a shipped one; did you mean"),
        (tune, ["tune_movie"], "tune_movie: no such file, nor a shipped one; did you mean tune_movielens"),
        (evaluate, ["run="], "run = '': must not be empty"),
        (train, ["output="], "output = '': must not be empty"),
        (train, ["deepfm"], "deepfm: settings have the form key=value"),
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


DATA = b"data: {name: x, path: y}\n"


def test_a_key_of_a_grid_file_that_is_misspelt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "2026.yaml").write_text("title: t\nmodles: {}\n")
    assert error_of(experiment, [f"{tmp_path}/2026.yaml"], capsys).startswith(
        "modles: unknown key; did you mean models"
    )


def test_a_grid_file_with_more_aliases_than_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid.yaml").write_bytes(BILLIONS)
    assert "its aliases stand for 1,709,671" in error_of(experiment, [f"{tmp_path}/grid.yaml"], capsys)


BILLIONS = b"a0: &a0 x\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 20)
)
BROKEN = {
    "not YAML": (b"a: [1, 2", "not YAML"),
    "a list": (b"- a\n- b\n", "holds no mapping"),
    "text": (b"only text", "data: missing"),
    "binary": (bytes(range(128, 256)), "not YAML"),
    "empty": (b"", "data: missing"),
    "without a section": (DATA + b"model: {_target_: cove_dist.models.ctr.dcn.DCN}\n", "embeddings: missing"),
    "without a model": (DATA, "model: missing"),
    "of another class": (DATA + b"model: {_target_: no.such.Class}\n", "_target_ = no.such.Class: is not imported"),
    "with more aliases than memory": (BILLIONS, "its aliases stand for 1,709,671,705,179,880,631 values"),
    "that contains itself": (b"a: &a [*a]\n", "contain themselves"),
    "nested deeply": (b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    "of a megabyte": (b"a: " + b"x" * 2**20, "bytes; a configuration has at most"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("main", [evaluate, export])
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
    error = error_of(train, small_run(tmp_path, tmp_path / "run"), capsys)
    assert error.startswith(f"{tmp_path}/schema.json: not a valid schema: ")
    assert "\n" not in error
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_and_an_output_that_is_a_file(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (tmp_path / "nowhere", file):
        error = error_of(train, small_run(path, tmp_path / "run"), capsys)
        assert error.startswith(f"{path}/schema.json: no such file. Prepare the data first")
    assert str(file) in error_of(evaluate, [f"run={file}"], capsys)


def test_a_run_in_a_folder_with_an_odd_name(prepared: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "dätä, [1] a=b", tmp_path / "it's a run, ä=[2]"
    shutil.copytree(prepared, data)
    train(small_run(data, run, "trainer.max_steps=2", "trainer.epochs=1"))
    assert OmegaConf.load(run / "config.yaml").data.path == str(data)
    evaluate([f"run={run}", "device=cpu"])
    assert [json.loads(path.read_text())["split"] for path in run.glob("metrics*.json")] == ["test"]
