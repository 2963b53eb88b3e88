"""The folder that preparation writes: killed, interrupted, on a full disk, not writable, not to be replaced."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cove_dist.cli import main
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.errors import DataError, OutputError
from data_pipeline.folders import replaced_folder
from data_pipeline.preparation.prepare import prepare
from data_pipeline.schema import Schema

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


def in_child(action: Callable[[], object], log: Path) -> int:
    """Run an action in a forked process, whose output goes to a file, and return its process id."""
    if pid := os.fork():
        return pid
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    try:
        action()
    except SystemExit as error:
        os._exit(int(error.code or 0))
    os._exit(99)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def begin_and_wait(output: Path) -> None:
    with replaced_folder(output) as folder:
        (folder / "half").write_text("x")
        time.sleep(60)


def kill_in_replacement(output: Path) -> None:
    """Die between the two renames by which a new folder takes the place of the old one."""
    with replaced_folder(output) as folder:
        (folder / "new").write_text("x")
        rename = Path.rename

        def rename_and_die(self: Path, target: Path) -> None:
            rename(self, target)
            os.kill(os.getpid(), signal.SIGKILL)

        Path.rename = rename_and_die


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_preparation_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    folder, log = tmp_path / "data", tmp_path / "log"
    killed, living = (in_child(lambda n=n: begin_and_wait(folder / n), log) for n in ("killed", "living"))
    wait_for(lambda: len(list(folder.glob("*/half"))) == 2)
    os.kill(killed, signal.SIGKILL)
    ended(killed)
    assert len(names(folder)) == 4  # a lock and a folder each
    with replaced_folder(folder / "other"):
        pass
    assert [name.split(".")[0] or name.split(".")[1] for name in names(folder)] == ["living", "living", "other"]
    os.kill(living, signal.SIGTERM)
    ended(living)
    with replaced_folder(folder / "again"):
        pass
    assert names(folder) == ["again", "other"]


def test_data_whose_replacement_was_killed_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "x" / "out").mkdir(parents=True)
    (tmp_path / "x" / "out" / "old").touch()
    assert ended(in_child(lambda: kill_in_replacement(tmp_path / "x" / "out"), tmp_path / "log")) == -signal.SIGKILL
    assert "out" not in names(tmp_path / "x")
    with replaced_folder(tmp_path / "x" / "other"):
        pass
    assert names(tmp_path / "x") == ["other", "out"]
    assert names(tmp_path / "x" / "out") == ["old"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_preparation_says_one_line_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    output, log = tmp_path / "data" / "out", tmp_path / "log"
    pid = in_child(lambda: main(["prepare", "data=synthetic", "rows=5000000", f"output={output}"]), log)
    wait_for(lambda: log.exists() and "generated" in log.read_text())
    os.kill(pid, number)
    assert ended(pid) == code
    last = log.read_text().splitlines()[-1]
    assert last == f"{number.name}: stopped; {output} is not written, and what was begun is removed"
    assert "Traceback" not in log.read_text()
    assert names(tmp_path / "data") == []


def on_a_small_disk(folder: Path, megabytes: int, action: Callable[[], None]) -> None:
    """Run an action where ``folder`` is on a disk of a few MB, which this process alone sees."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
        os._exit(77)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    action()


@pytest.mark.parametrize("megabytes", [1, 3, 6])  # full while reading, checking, splitting
def test_a_full_disk_is_named_at_once_and_nothing_is_left(tmp_path: Path, megabytes: int) -> None:
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()

    def fill() -> None:
        data = Synthetic(users=5_000, items=1_000, rows=200_000, implicit=True, split="leave_one_out")
        with pytest.raises(OutputError) as raised:
            prepare(data, disk / "out", name="big", on_progress=lambda _: None)
        print(str(raised.value), names(disk), sep="\n")
        os._exit(0)

    if (code := ended(in_child(lambda: on_a_small_disk(disk, megabytes, fill), log))) == 77:
        pytest.skip("user namespaces are not allowed here")
    assert code == 0, log.read_text()
    message, left = log.read_text().splitlines()[-2:]
    assert message.startswith(f"{disk}/out: no space left on the disk of {disk}: ")
    assert left == "[]"


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Synthetic, "read", lambda *_: pytest.fail("work began"))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("{tmp}/" + "x" * 256, "File name too long"),
        ("{tmp}" + "/x" * 2_100, "File name too long"),
        ("{tmp}/file/out", "Not a directory|File exists"),
        ("/proc/out", "No such file or directory"),
        ("/sys/out", "Operation not permitted|Permission denied|Read-only file system"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    unreadable(monkeypatch)
    path = output.format(tmp=tmp_path)
    with pytest.raises(OutputError, match=rf"output = {path}: cannot be written: ({reason})\. Pass another output"):
        prepare(Synthetic(users=5, items=5, rows=50), Path(path), name="small")


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    output = tmp_path / ("ä" * 127)
    prepare(Synthetic(users=9, items=9, rows=200), output, name="small")
    assert names(tmp_path) == [output.name]


def test_an_empty_output_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(monkeypatch)
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "data=synthetic", "output="])
    assert capsys.readouterr().err.startswith("error: output = ")


@pytest.fixture
def made(prepared: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", prepared, tmp_path / "out"], check=True)
    return tmp_path / "out"


def add_file(folder: Path) -> None:
    (folder / "train" / "notes.txt").write_text("mine")


def add_link(folder: Path) -> None:
    (folder / "notes").symlink_to("/tmp")


def foreign_schema(folder: Path) -> None:
    (folder / "schema.json").write_text('{"fields": []}')


def earlier_version(folder: Path) -> None:
    schema = Schema.load(folder)
    Schema(schema.name, schema.label, schema.categorical, schema.dense, schema.splits).save(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_file, "has 1 files that preparation did not write, such as train/notes.txt"),
        (add_link, "has 1 files that preparation did not write, such as notes"),
        (foreign_schema, r"not a prepared data set \(.*not a valid schema"),
        (earlier_version, "its schema.json does not list the files that preparation wrote"),
    ],
)
def test_only_what_preparation_wrote_is_overwritten(
    made: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], reason: str
) -> None:
    change(made)
    before = sorted(made.rglob("*"))
    unreadable(monkeypatch)
    with pytest.raises(DataError, match=rf"{made}: {reason}.*so it is not overwritten"):
        prepare(Synthetic(users=9, items=9, rows=200), made, name="small", overwrite=True)
    assert sorted(made.rglob("*")) == before


def test_overwriting_again_replaces_all_of_it(made: Path) -> None:
    prepare(Synthetic(users=9, items=9, rows=200), made, name="small", overwrite=True)
    assert Schema.load(made).name == "small"
    assert names(made.parent) == ["out"]
