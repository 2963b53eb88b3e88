"""What Python users pass: arrays, tables and frames, long lists, and values that are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import cove_dist as cove
from cove_dist import cli
from cove_dist.errors import ConfigError
from data_pipeline.errors import DataError
from tests.end_to_end.python_api.conftest import ITEMS, USERS

MANY = 10**9  # a list of so many items would take gigabytes


class Frame:
    """A data frame as Arrow reads it from pandas and polars."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_arrays_are_scored_as_lists_are(cf: cove.Run) -> None:
    expected = cf.score(["u1", "u2"], [3, 4])
    assert np.isfinite(expected).all()
    for users in (np.array(["u1", "u2"]), np.array(["u1", "u2"], object), pa.array(["u1", "u2"])):
        for items in (np.array([3, 4]), torch.tensor([3, 4]), [3, "4"]):
            assert cf.score(users, items).tolist() == expected.tolist()
    listed = cf.recommend(["u1", "u2"], k=3)
    assert cf.recommend(np.array(["u1", "u2"]), k=np.int64(3)).equals(listed)
    with pytest.raises(ConfigError, match="score: 0 users and 2 items; give an item for each"):
        cf.score([], [3, 4])


def test_sequences_are_arrays_too(sequential: cove.Run) -> None:
    expected = sequential.recommend(sequences=[[1, 2], [3, 4]], k=5)
    for sequences in (np.array([[1, 2], [3, 4]]), [torch.tensor([1, 2]), (3, "4")], pa.array([[1, 2], [3, 4]])):
        assert sequential.recommend(sequences=sequences, k=5).equals(expected)
    with pytest.raises(ConfigError, match="one of sequences = 1: give a list of ids"):
        sequential.recommend(sequences=[1, 2])
    with pytest.raises(ConfigError, match=r"Allowed: unknown=skip$"):
        sequential.score(sequences=[[1, 999]], items=[3])
    untrained = "neither codes for unseen items nor items rarer than data.min_count"
    for ask in (partial(sequential.score, items=[3]), sequential.recommend):
        with pytest.raises(ConfigError, match=untrained):
            ask(sequences=[[1, 999]], unknown="oov_row")


@pytest.mark.parametrize("task", ["ctr", "cf", "sequential"])
def test_a_user_who_is_requested_twice_has_the_same_list_twice(task: str, request: pytest.FixtureRequest) -> None:
    run: cove.Run = request.getfixturevalue(task)
    columns = {"device": "a", "price": 0.5} if task == "ctr" else {}
    once = run.recommend(["u2", "u1"], k=ITEMS, columns=columns).to_pylist()
    of_first = [row for row in once if row["user"] == "u2"]
    assert run.recommend(["u2", "u1", "u2"], k=ITEMS, columns=columns).to_pylist() == [*once, *of_first]


@pytest.mark.parametrize("task", ["ctr", "cf", "sequential"])
def test_a_list_is_no_longer_than_the_catalogue(task: str, request: pytest.FixtureRequest) -> None:
    run: cove.Run = request.getfixturevalue(task)
    columns = {"device": "a", "price": 0.5} if task == "ctr" else {}
    for history in ("remove", "keep"):
        whole = run.recommend(["u1", "u2"], k=ITEMS, history=history, columns=columns)
        assert run.recommend(["u1", "u2"], k=MANY, history=history, columns=columns).equals(whole)
    popular = run.recommend(["nobody"], k=MANY, unknown="popular", columns=columns)
    assert sorted(popular["item"].to_pylist()) == list(range(ITEMS))


def test_the_command_lists_no_more_than_the_catalogue(cf: cove.Run, tmp_path: Path) -> None:
    given = [f"run={cf.folder}", "users=[u1,nobody]", "unknown=popular", f"k={MANY}", "device=cpu"]
    cli.main(["recommend", *given, f"output={tmp_path}/lists"])
    written = pq.read_table(tmp_path / "lists")
    listed = cf.recommend(["u1", "nobody"], k=ITEMS, unknown="popular")
    assert [written[name].to_pylist() for name in ("user", "rank", "item")] == [
        listed[name].to_pylist() for name in ("user", "rank", "item")
    ]


def test_lists_of_folded_in_ids_are_no_longer_than_what_can_be_listed(cf: cove.Run) -> None:
    assert len(cf.fold_in({"new": [3]}).recommend(MANY)) == ITEMS - 1
    assert len(cf.fold_in({"new": ["u3"]}, "item").recommend(MANY, history="keep")) == USERS


def test_tables_batches_and_frames_are_predicted_and_folded_in(cf: cove.Run) -> None:
    rows = pa.table({"user_id": ["u1", "u2"], "item_id": [3, 4]})
    expected = cf.predict(rows)
    for form in (rows.to_batches()[0], Frame(rows)):
        assert cf.predict(form).equals(expected)
    with pytest.raises(ConfigError, match=r"rows: of type int; give a pyarrow\.Table, a RecordBatch, a DataFrame, or"):
        cf.predict(5)
    new = pa.table({"user_id": ["new", "new"], "item_id": [3, 4]})
    expected = cf.fold_in({"new": np.array([3, 4])}).embeddings()
    for given in (new, new.to_batches()[0], Frame(new)):
        assert cf.fold_in(given).embeddings().equals(expected)


REFUSED: dict[str, tuple[Callable[[cove.Run], Any], str]] = {
    "checkpoint": (lambda run: cove.load(run.folder, "bset"), "checkpoint = 'bset': allowed: best, newest"),
    "device": (lambda run: cove.load(run.folder, device="gpu"), "device = 'gpu': allowed: auto, cpu, cuda"),
    "k": (lambda run: run.recommend(["u1"], k=True), "k = True: allowed: whole numbers from 1"),
    "users": (lambda run: run.recommend("u1"), r"users = 'u1': give a list of ids, as \['u1'\]"),
    "one item": (lambda run: run.score(["u1"], 3), r"items = 3: give a list of ids, as \[3\]"),
    "dimensions": (lambda run: run.recommend(np.ones((2, 2))), r"users: an array of shape \[2, 2\]"),
    "entity": (lambda run: run.embeddings("foo"), "entity = 'foo': allowed: user, item"),
    "entity of codes": (lambda run: run.codes("users"), "entity = 'users': allowed: user, item"),
    "no interactions": (
        lambda run: run.fold_in({"n": [], "m": [1]}),
        "interactions: 1 of 2 new ids have none, such as 'n'; a new id is folded in by its interactions, so leave",
    ),
    "text": (lambda run: run.fold_in({"n": "34"}), "interactions: of 'n' = '34': give a list of ids"),
    "processes": (lambda run: cove.train(run.folder, processes=0), "processes = 0: allowed: whole numbers from 1"),
    "debug": (
        lambda run: cove.train(run.folder.parents[1] / "cf", "bprmf", settings={"trainer.debug": True}),
        "trainer.debug = true: leaves no run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_value_is_named_with_what_is_allowed(case: str, cf: cove.Run) -> None:
    request, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        request(cf)


def test_an_interrupt_waits_for_the_ranks(cf: cove.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torchrun interrupts the caller, and takes half a second to stop."""
    torchrun = tmp_path / "torchrun"
    stopping = f"sleep 0.5; touch {tmp_path}/stopped; exit 1"
    torchrun.write_text(
        f"#!/bin/sh\ntrap '{stopping}' TERM\nsleep 0.5\nkill -INT $PPID\nwhile :; do sleep 0.02; done\n"
    )
    torchrun.chmod(0o755)
    monkeypatch.setattr("cove_dist.api.sys.executable", str(torchrun))
    with pytest.raises(KeyboardInterrupt):
        cove.train(cf.folder.parents[1] / "cf", "bprmf", output=tmp_path / "run", processes=2)
    assert (tmp_path / "stopped").exists()


def test_a_run_that_was_trained_in_another_working_directory(
    cf: cove.Run, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if its data had been given by a relative path."""
    shutil.copytree(cf.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.lock"))
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace(str(log.parent / "cf"), "cf"))
    expected = cf.score(["u1"], [3])
    monkeypatch.chdir(tmp_path)
    run = cove.load("run", device="cpu")
    assert run.score(["u1"], [3]) == expected
    cli.main(["recommend", "run=run", "users=[u1]", "k=3", "device=cpu"])
    shutil.copytree(log.parent / "cf", tmp_path / "data")
    moved = cove.load("run", device="cpu", data="data")
    pq.write_table(pa.table({"user_id": ["u1"], "item_id": [3]}), tmp_path / "rows.parquet")
    for words in (["evaluate"], ["recommend"], ["predict", "rows=rows.parquet"], ["export", "what=[embeddings]"]):
        command = [words[0], "run=run", "device=cpu", *words[1:]]
        cli.main([*command, "data.path=data"])
        with pytest.raises(SystemExit):
            cli.main([*command, "data.path=lost"])
        assert f"no schema.json in {tmp_path / 'lost'}. Restore them, or name" in capsys.readouterr().err
    monkeypatch.chdir(log.parent)
    assert moved.evaluate() == cf.evaluate() == moved.metrics["test"]
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match=r"data/ids/user_id\.parquet: no such file\. Restore it, or prepare"):
        moved.recommend(["u1"])


def test_metrics_of_an_earlier_best_checkpoint_are_not_shown(cf: cove.Run) -> None:
    cf.evaluate()
    path = cf.folder / "metrics_test_best.json"
    text = path.read_text()
    path.write_text(text.replace(cf.session.checkpoint.name, "step_00000001"))
    try:
        assert set(cf.metrics) == {"validation"}
    finally:
        path.write_text(text)
    assert set(cf.metrics) == {"validation", "test"}


def test_empty_and_needless_parts_of_requests(sequential: cove.Run, ctr: cove.Run, tmp_path: Path) -> None:
    assert len(sequential.recommend(sequences=[], k=3, unknown="popular")) == 0
    for request in (sequential.recommend, partial(sequential.score, items=[3])):
        with pytest.raises(ConfigError, match="columns = device: sequences have none; leave them out"):
            request(sequences=[[1, 2]], columns={"device": ["a"]})
    (tmp_path / "none.csv").write_text("user_id,item_id,device,price\n")
    with pytest.raises(ConfigError, match=r"none\.csv: has no rows"):
        ctr.predict(tmp_path / "none.csv")


def test_unknown_users_are_left_out_whatever_their_type(ctr: cove.Run, sequential: cove.Run) -> None:
    for run, given in ((ctr, ["columns={device:a,price:0.5}"]), (sequential, [])):
        cli.main(["recommend", f"run={run.folder}", "users=[u1,7]", "k=3", "device=cpu", "unknown=skip", *given])
        assert pq.read_table(run.folder / "recommendations")["user"].unique().to_pylist() == ["u1"]
