"""A preparation that is ended at any step goes on from there, and writes what it would have written."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from cove_dist.cli import main
from data_pipeline.datasets.amazon_reviews import AmazonReviews
from data_pipeline.datasets.custom import Custom
from data_pipeline.datasets.movielens_100k import MovieLens100K
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.errors import DataError, OutputError
from data_pipeline.preparation.dataset import RawDataset
from data_pipeline.preparation.journal import Journal
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.workspace import Workspace
from tests.end_to_end.preparation.test_output import ended, in_child, names, wait_for
from tests.end_to_end.preparation.test_prepare_movielens import write_100k_grouplens
from tests.unit.data.prepare_helpers import some_rows, write_csv

IMPLICIT = Synthetic(users=60, items=40, rows=3_000, implicit=True, split="leave_one_out", core=3, candidates=5)
SEQUENCES = Synthetic(users=60, items=40, rows=3_000, implicit=True, split="leave_one_out", sequences=6)


class Killed(BaseException):
    """Ends a preparation as a signal does."""


def end_before(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let a preparation run so many steps, and end it before the next."""
    run, left = Journal.run, [steps]

    def run_some(self: Journal, sql: str) -> list[tuple]:
        if self._next >= self.done:
            if not left[0]:
                raise Killed
            left[0] -= 1
        return run(self, sql)

    monkeypatch.setattr(Journal, "run", run_some)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labelled(folder: Path) -> Custom:
    raw = write_csv(folder / "raw.csv", some_rows())
    return Custom(source=str(raw), user="user", item="item", label="label", time="time")


def malformed(folder: Path) -> MovieLens100K:
    """Files of ratings and films with lines that cannot be read."""
    write_100k_grouplens(folder / "ml")
    for name, line in (("u.data", "7\t8\n9\n"), ("u.item", "x|y\n")):
        with (folder / "ml" / name).open("a") as file:
            file.write(line)
    return MovieLens100K(source=str(folder / "ml"), on_invalid="drop")


MAKE = {"pairs": lambda _: IMPLICIT, "sequences": lambda _: SEQUENCES, "csv": labelled, "malformed": malformed}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_ended_after_every_step_it_writes_the_same_files(tmp_path: Path, make: Callable[[Path], RawDataset]) -> None:
    dataset, lines = make(tmp_path), []
    prepare(dataset, tmp_path / "whole", name="x")
    steps = 0
    while not (tmp_path / "parts").exists():
        with pytest.MonkeyPatch.context() as patch:
            end_before(patch, 1)
            try:
                prepare(dataset, tmp_path / "parts", name="x", resume=True, on_progress=lines.append)
            except Killed:
                steps += 1
    assert steps > 10
    assert f"going on after {steps} steps that are done" in lines
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert {"parts", "whole"} == {name for name in names(tmp_path) if name not in ("raw.csv", "ml")}
    dropped = Report.load(tmp_path / "parts").rows_dropped
    assert dropped.get("malformed CSV line", 0) == (2 if make is malformed else 0)


def test_a_killed_process_leaves_its_finished_steps_to_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def kill_itself() -> None:
        with pytest.MonkeyPatch.context() as patch:
            run = Journal.run

            def run_or_die(self: Journal, sql: str) -> list[tuple]:
                if self._next == 12:
                    os.kill(os.getpid(), signal.SIGKILL)
                return run(self, sql)

            patch.setattr(Journal, "run", run_or_die)
            prepare(IMPLICIT, tmp_path / "out", name="x", resume=True)

    assert ended(in_child(kill_itself, log)) == -signal.SIGKILL
    lines: list[str] = []
    prepare(IMPLICIT, tmp_path / "out", name="x", resume=True, on_progress=lines.append)
    assert "going on after 12 steps that are done" in lines
    prepare(IMPLICIT, tmp_path / "whole", name="x")
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert names(tmp_path) == ["log", "out", "whole"]


def test_the_program_says_that_it_goes_on(tmp_path: Path) -> None:
    output, log = tmp_path / "data" / "out", tmp_path / "log"
    command = ["prepare", "data=synthetic", "rows=5000000", "resume=true", f"output={output}"]
    pid = in_child(lambda: main(command), log)
    wait_for(lambda: log.exists() and "generated" in log.read_text())
    os.kill(pid, signal.SIGTERM)
    assert ended(pid) == 143
    last = log.read_text().splitlines()[-1]
    assert last == f"SIGTERM: stopped; {output} is not written, and the same command goes on"
    assert names(tmp_path / "data") == ["out.resume"]


@pytest.fixture
def begun(tmp_path: Path) -> Custom:
    """A preparation of a CSV file that was ended after five steps."""
    dataset = labelled(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        end_before(patch, 5)
        with pytest.raises(Killed):
            prepare(dataset, tmp_path / "out", name="x", resume=True)
    return dataset


@pytest.mark.parametrize("changed", ["file", "setting", "seed"])
def test_other_data_or_settings_are_refused_by_name(tmp_path: Path, begun: Custom, changed: str) -> None:
    dataset, seed, raw = begun, 0, tmp_path / "raw.csv"
    if changed == "file":
        raw.write_text(raw.read_text() + "u,i,1,9\n")
    elif changed == "setting":
        dataset = Custom(source=str(raw), user="user", item="item", label="label", time="time", split="random")
    else:
        seed = 1
    what = {"file": f"file {raw}", "setting": r"data\.split \(None, now 'random'\)", "seed": r"seed \(0, now 1\)"}
    with pytest.raises(OutputError, match=rf"out\.resume: was begun with another {what[changed]}\. Remove this folder"):
        prepare(dataset, tmp_path / "out", name="x", seed=seed, resume=True)
    assert (tmp_path / "out.resume" / "work.duckdb").exists()
    lines: list[str] = []
    prepare(dataset, tmp_path / "out", name="x", seed=seed, on_progress=lines.append)
    assert lines[0].startswith(f"{tmp_path / 'out.resume'} is left as it is: resume=true goes on from there")


@dataclass(frozen=True, kw_only=True)
class Reviews(AmazonReviews):
    """A data set of one's own, whose settings name files otherwise."""

    source: str = ""
    log: str

    def read(self, workspace: Workspace) -> Source:
        return AmazonReviews(source=self.log).read(workspace)


@pytest.mark.parametrize("changed", ["reviews_Toys_5.json", "meta_Toys.json"])
def test_every_file_that_was_read_is_compared(tmp_path: Path, changed: str) -> None:
    lines = [{"reviewerID": f"u{k % 5}", "asin": f"a{k % 7}", "unixReviewTime": k} for k in range(35)]
    (tmp_path / "reviews_Toys_5.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "meta_Toys.json").write_text("\n".join(str({"asin": f"a{k}", "brand": "b"}) for k in range(7)))
    dataset = Reviews(log=str(tmp_path / "reviews_Toys_5.json"), implicit=True, split="leave_one_out")
    with pytest.MonkeyPatch.context() as patch:
        end_before(patch, 8)
        with pytest.raises(Killed):
            prepare(dataset, tmp_path / "out", name="x", resume=True)
    (tmp_path / changed).write_text((tmp_path / changed).read_text() + "\n")
    with pytest.raises(
        OutputError, match=rf"out\.resume: was begun with another file .*{changed}\. Remove this folder"
    ):
        prepare(dataset, tmp_path / "out", name="x", resume=True)


def test_a_further_file_is_another_one_only_among_the_steps_that_are_done(tmp_path: Path) -> None:
    connection, file = duckdb.connect(), write_csv(tmp_path / "raw.csv", some_rows())
    journal = Journal(connection)
    assert journal.reads(file)
    journal.run("SELECT 1")
    again = Journal(connection)
    assert again.reads(file)
    other = write_csv(tmp_path / "other.csv", some_rows())
    assert not again.reads(other)
    again.run("SELECT 1")
    assert again.reads(other)


def test_an_output_folder_inside_the_source_is_refused_as_such(tmp_path: Path) -> None:
    write_csv(tmp_path / "raw.csv", some_rows())
    dataset = Custom(source=str(tmp_path), user="user", item="item", label="label", time="time")
    with pytest.raises(DataError, match=r"the output folder is inside it, .*Pass an output folder outside"):
        prepare(dataset, tmp_path / "out", name="x")
    assert names(tmp_path) == ["raw.csv"]


def test_refused_data_leave_nothing(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "raw.csv", some_rows()[:3])
    dataset = Custom(source=str(raw), user="user", item="item", label="label", time="time", ratios=(1, 1, 1))
    with pytest.raises(DataError):
        prepare(dataset, tmp_path / "out", name="x", resume=True)
    assert names(tmp_path) == ["raw.csv"]


def test_two_preparations_do_not_share_their_steps(tmp_path: Path) -> None:
    def inside(line: str) -> None:
        if line.startswith("generated"):
            with pytest.raises(OutputError, match=r"out\.resume: another preparation uses it"):
                prepare(IMPLICIT, tmp_path / "out", name="x", resume=True, on_progress=lambda _: None)

    prepare(IMPLICIT, tmp_path / "out", name="x", resume=True, on_progress=inside)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("content", ["own folder", "file", "identity", "database"])
def test_what_is_no_folder_of_steps_is_refused_and_stays(tmp_path: Path, begun: Custom, content: str) -> None:
    folder = tmp_path / "out.resume"
    if content == "own folder":
        (folder / "identity.json").rename(folder / "notes.txt")
    elif content == "file":
        folder = tmp_path / "other.resume"
        folder.write_text("mine")
    elif content == "identity":
        (folder / "identity.json").write_text("[")
    else:
        (folder / "work.duckdb").write_bytes((folder / "work.duckdb").read_bytes()[:100])
    reason = "damaged" if content in ("identity", "database") else "was not made by a preparation"
    with pytest.raises(OutputError, match=rf"resume.*: {reason}.*pass resume=false"):
        prepare(begun, folder.with_name(folder.name.removesuffix(".resume")), name="x", resume=True)
    assert folder.exists() and (content != "own folder" or (folder / "notes.txt").exists())


def test_columns_named_like_folders_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column called user, and the output in a folder of that name."""
    monkeypatch.chdir(tmp_path)
    dataset, output = labelled(tmp_path), tmp_path / "user" / "out"
    with pytest.MonkeyPatch.context() as patch:
        end_before(patch, 5)
        with pytest.raises(Killed):
            prepare(dataset, output, name="x", resume=True)
    prepare(dataset, output, name="x", resume=True)
    assert names(tmp_path / "user") == ["out"]


def test_an_entry_that_names_a_function_is_refused(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "made"),)

    connection = duckdb.connect()
    Journal(connection).run("SELECT 1")
    connection.execute("UPDATE __journal SET result = ?", [pickle.dumps([Command()])])
    with pytest.raises(OutputError, match=r"the entry of a step is damaged: .*mkdir is no value\. Pass resume=false"):
        Journal(connection).run("SELECT 1")
    assert not (tmp_path / "made").exists()


def test_results_of_every_type_are_kept() -> None:
    connection = duckdb.connect()
    query = "SELECT 1::HUGEINT, 0.5::DECIMAL(4,1), DATE '2020-01-02', TIMESTAMP '2020-01-02 03:04:05',"
    query += " TIME '01:02:03', INTERVAL 3 DAY, uuid(), 'text', [1, 2], NULL, true, 'x'::BLOB"
    first = Journal(connection).run(query)
    assert Journal(connection).run(query) == first
