"""What the programs print for a grid, a configuration or a schema that is not what it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configurations import small_run
from tests.unit.configuration.calling import Main, command, error_of

train, evaluate, export, experiment = map(command, ("train", "evaluate", "export", "experiment"))

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
    "nested deeply": (b"a: " + b"[" * 500 + b"]" * 500, "nested too deeply"),
    "a number": (b"3\n", "holds no mapping"),
    "with a number of 5,000 digits": (b"seed: " + b"9" * 5000, "Exceeds the limit"),
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
