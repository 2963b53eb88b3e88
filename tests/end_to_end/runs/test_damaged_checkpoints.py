"""Checkpoints whose files were changed by accident."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.checkpoints.io import newest_sound
from cove_dist.checkpoints.manifest import verify
from cove_dist.errors import CheckpointError
from cove_dist.inference.codes import export_codes
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.training.program import train
from tests.configurations import COVE, small_run

FILES = (".metadata", "__0_0.distcp", "manifest.json", "meta.json", "rank_0.safetensors")
NEWEST, BEFORE = "step_00000008", "step_00000004"


def flip(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path, other: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    content, others = path.read_bytes(), other.read_bytes()
    path.write_bytes(others)
    other.write_bytes(content)


def replace_by_a_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = (flip, cut, empty, delete, swap, replace_by_a_folder)


def overrides(prepared: Path, run: Path) -> list[str]:
    return small_run(prepared, run, *COVE, "trainer.checkpoint.every_steps=4", "trainer.epochs=1")


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at step 8 of 13 with two checkpoints."""
    run = tmp_path_factory.mktemp("damaged") / "run"
    train([*overrides(prepared, run), "trainer.max_steps=8"])
    assert [path.name for path in CheckpointFolder(run / "checkpoints").complete()] == [BEFORE, NEWEST]
    assert sorted(path.name for path in (run / "checkpoints" / NEWEST).iterdir()) == sorted(FILES)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_each_damage_of_each_file_is_named_and_the_checkpoint_before_it_is_taken(
    run: Path, file: str, damage: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = run / "checkpoints"
    damage(folder / NEWEST / file, folder / "other" if damage is not swap else folder / BEFORE / file)
    named = file if not (damage is swap and file == "manifest.json") else ""  # its files differ from the other manifest
    with pytest.raises(
        CheckpointError, match=f"{NEWEST}/{named}.*Restore the file, or remove this checkpoint"
    ) as error:
        verify(folder / NEWEST)
    assert "\n" not in str(error.value)
    if damage is swap:
        shutil.rmtree(folder / BEFORE)
        with pytest.raises(CheckpointError, match="all 1 checkpoints are damaged"):
            newest_sound(CheckpointFolder(folder))
    else:
        assert newest_sound(CheckpointFolder(folder)) == folder / BEFORE
        assert str(error.value) in caplog.text
        assert f"Checkpoint {NEWEST} is damaged; trying the previous one" in caplog.text


def losses(run: Path) -> list[float]:
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["kind"] == "train"]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_loses_nothing(
    prepared: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, resume = tmp_path / "whole", "trainer.checkpoint.resume=auto"
    train(overrides(prepared, whole))
    flip(run / "checkpoints" / NEWEST / "__0_0.distcp", run)
    train([*overrides(prepared, run), resume])
    assert losses(run) == losses(whole)
    assert sorted(path.name for path in (run / "checkpoints").glob("*.damaged")) == [f"{NEWEST}.damaged"]
    assert f"Kept as {run / 'checkpoints' / NEWEST}.damaged, which is not used" in caplog.text


@pytest.mark.parametrize("program", [evaluate_run, export_codes])
@pytest.mark.parametrize("file", ["__0_0.distcp", "manifest.json"])
def test_programs_over_a_finished_run_name_the_file_and_take_no_other_checkpoint(
    run: Path, program: Callable[[list[str]], object], file: str
) -> None:
    path = run / "checkpoints" / NEWEST / file
    flip(path, run)
    with pytest.raises(CheckpointError, match=rf"{path}: damaged: "):
        program([f"run={run}", "checkpoint=newest", "device=cpu"])
