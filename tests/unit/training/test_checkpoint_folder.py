"""Checkpoints as files: which are complete, which is best, which are kept."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.checkpoints.files import CheckpointFolder, CheckpointMeta, read_meta
from cove_dist.checkpoints.io import check_same_model
from cove_dist.errors import CheckpointError
from cove_dist.tasks.configuration import load_run_config
from tests.checkpoints import write_checkpoint


def write(folder: Path, step: int, auc: float | None) -> Path:
    return write_checkpoint(folder, step, {} if auc is None else {"auc": auc, "logloss": auc})


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step_")) for path in CheckpointFolder(folder).complete()]


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    write(tmp_path, 10, 0.7)
    (tmp_path / "step_00000020.partial").mkdir()
    (tmp_path / "step_00000030.removed").mkdir()
    files = CheckpointFolder(tmp_path)
    assert files.newest() == tmp_path / "step_00000010"
    files.remove_partial()
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000010"]


@pytest.mark.parametrize("file", ["meta.json", "manifest.json"])
def test_a_damaged_one_is_named_to_readers_and_set_aside_by_the_run_that_goes_on(tmp_path: Path, file: str) -> None:
    for step, auc in ((10, 0.7), (20, 0.8), (30, 0.9), (40, 0.6)):
        write(tmp_path, step, auc)
    damaged, files = tmp_path / "step_00000020" / file, CheckpointFolder(tmp_path)
    damaged.unlink()
    assert files.newest() == tmp_path / "step_00000040"
    with pytest.raises(CheckpointError, match=rf"{damaged}: missing.* remove"):
        files.best("auc")
    files.prune(3, "auc")
    assert steps(tmp_path) == [10, 30, 40]
    assert [path.name for path in files.set_aside(30)] == ["step_00000020.damaged", "step_00000040.damaged"]
    assert files.best("auc") == files.newest() == tmp_path / "step_00000030"
    write(tmp_path, 40, 0.6)
    files.set_aside(30)  # once more: the last one is kept
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "step_00000040.damaged"


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 10, 0.7).rename(tmp_path / "step_00000020")
    with pytest.raises(CheckpointError, match=r"step_00000020: is a checkpoint of step 10\. Rename"):
        CheckpointFolder(tmp_path).newest()


def test_a_removal_cut_short_leaves_no_complete_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next save goes on."""
    for step, auc in ((10, 0.7), (20, 0.9), (30, 0.8)):
        write(tmp_path, step, auc)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        CheckpointFolder(tmp_path).prune(1, "auc")
    assert steps(tmp_path) == [20, 30]
    CheckpointFolder(tmp_path).prune(1, "auc")
    CheckpointFolder(tmp_path).remove_partial()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000020", "step_00000030"]


def test_the_best_is_by_the_metric_and_its_direction_and_the_earliest_among_equals(tmp_path: Path) -> None:
    for step, auc in ((10, 0.6), (20, 0.9), (30, 0.9), (40, None), (50, 0.6)):
        write(tmp_path, step, auc)
    files = CheckpointFolder(tmp_path)
    assert files.best("auc") == tmp_path / "step_00000020"
    assert files.best("logloss") == tmp_path / "step_00000010"
    assert files.best("gauc") is None


@pytest.mark.parametrize(("keep", "kept"), [(1, [20, 50]), (2, [20, 40, 50]), (9, [10, 20, 30, 40, 50])])
def test_the_newest_and_the_best_are_kept(tmp_path: Path, keep: int, kept: list[int]) -> None:
    for step, auc in ((10, 0.7), (20, 0.9), (30, 0.8), (40, None), (50, 0.6)):
        write(tmp_path, step, auc)
    CheckpointFolder(tmp_path).prune(keep, "auc")
    assert steps(tmp_path) == kept


def test_a_metric_that_was_not_defined_is_null_in_the_file_and_never_the_best(tmp_path: Path) -> None:
    for step, auc in ((10, math.nan), (20, 0.6)):
        write(tmp_path, step, auc)
    files = CheckpointFolder(tmp_path)
    assert json.loads((files.complete()[0] / "meta.json").read_text(), parse_constant=pytest.fail)
    assert math.isnan(read_meta(files.complete()[0]).metrics["auc"])
    assert files.best("auc") == files.best("logloss") == tmp_path / "step_00000020"


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "absent").newest() is None
    with pytest.raises(CheckpointError, match=r"manifest\.json: missing"):
        read_meta(tmp_path)


def test_without_a_best_one_the_error_says_why(prepared: Path, tmp_path: Path) -> None:
    config, _ = load_run_config([f"data.path={prepared}"])
    with pytest.raises(CheckpointError, match=r"no complete checkpoint; train first"):
        find_checkpoint(tmp_path, config, "best")
    path = write(tmp_path / "checkpoints", 10, None)
    with pytest.raises(CheckpointError, match=r"auc was undefined .* give checkpoint=newest"):
        find_checkpoint(tmp_path, config, "best")
    assert find_checkpoint(tmp_path, config, "newest") == path


def test_every_difference_of_another_model_is_named(tmp_path: Path) -> None:
    saved = CheckpointMeta(1, 1, {"embeddings.dim": 8, "tables": {"user_id": 5}, "same": [1]}, {}, {}, "data", None)
    with pytest.raises(CheckpointError, match=r"embeddings\.dim: 8 there, 16 here; tables: .*5.* there, .*6.* here\."):
        check_same_model(tmp_path, saved, {"embeddings.dim": 16, "tables": {"user_id": 6}, "same": (1,)})
    check_same_model(tmp_path, saved, {"embeddings.dim": 8, "tables": {"user_id": 5}, "same": (1,)})


def test_a_checkpoint_of_the_same_step_is_removed_when_the_new_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while the old files are removed, which may take long, leaves the new checkpoint."""
    write(tmp_path, 10, 0.5)
    write(tmp_path / "new", 10, 0.7).rename(tmp_path / "step_00000010.partial")
    files, found = CheckpointFolder(tmp_path), []
    monkeypatch.setattr("cove_dist.checkpoints.files._delete", lambda old: found.append(files.best("auc")))
    files.replace(tmp_path / "step_00000010", tmp_path / "step_00000010.partial")
    assert [read_meta(path).metrics["auc"] for path in found] == [0.7]


def test_a_checkpoint_that_is_a_link_is_pruned_without_its_target(tmp_path: Path) -> None:
    """Also one whose removal was interrupted after the renaming."""
    for step in (10, 20, 30):
        write(tmp_path / "elsewhere", step, None)
        (tmp_path / f"step_{step:08d}").symlink_to(tmp_path / "elsewhere" / f"step_{step:08d}")
    (tmp_path / "step_00000005.removed").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "step_00000006.partial").touch()
    files = CheckpointFolder(tmp_path)
    files.remove_partial()
    files.prune(keep=1, metric="auc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "step_00000030"]
    assert steps(tmp_path / "elsewhere") == [10, 20, 30]


@pytest.mark.parametrize("name", ["manifest.json", "meta.json"])
def test_a_named_pipe_is_damage_and_does_not_block(tmp_path: Path, name: str) -> None:
    checkpoint = write(tmp_path, 10, None)
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    with pytest.raises(CheckpointError, match=rf"^{checkpoint}/{name}: (damaged: not a file|missing)"):
        read_meta(checkpoint)
