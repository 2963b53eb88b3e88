"""Unseen users and items: folded in, served by the out-of-vocabulary row, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

import cove_dist as cove
from cove_dist import cli
from cove_dist.errors import ConfigError
from cove_dist.inference.users import as_ids

USERS, ITEMS = 60, 40
SMALL = {"embeddings.dim": 8, "trainer.batch_size": 128, "trainer.device": "cpu", "embeddings.optimizer.name": "adam"}
FAST = {"trainer.epochs": 15, "embeddings.optimizer.learning_rate": 0.02, "trainer.early_stopping.patience": None}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Even users have even items and odd users odd ones; of both kinds, lower items are more frequent."""
    draw = np.random.default_rng(0)
    weights = 1 / np.arange(2, ITEMS // 2 + 2)
    rows = [
        (f"u{user}", int(2 * item + user % 2))
        for user in range(USERS)
        for item in draw.choice(ITEMS // 2, 10, replace=False, p=weights / weights.sum())
    ]
    path = tmp_path_factory.mktemp("new") / "log.csv"
    table = pa.table({"user": [u for u, _ in rows], "item": [i for _, i in rows], "time": range(len(rows))})
    pa.csv.write_csv(table, path)
    return path


@pytest.fixture(scope="module")
def data(log: Path) -> Path:
    columns = {"user": "user", "item": "item", "time": "time", "label": None, "candidates": 10}
    return cove.prepare(log, log.parent / "data", settings=columns)


@pytest.fixture(scope="module")
def run(data: Path) -> cove.Run:
    settings = {**SMALL, **FAST, "embeddings.id_dropout": 0.2}
    return cove.train(data, "bprmf", output=data.parent / "runs" / "bprmf", settings=settings)


def test_a_new_user_gets_items_of_its_kind_and_a_new_item_users_of_its_kind(run: cove.Run) -> None:
    folded = run.fold_in({"even": [0, 6, 14, 20], "odd": [1, 9, 15, 33]})
    assert folded.embeddings()["embedding"].type.list_size == 8
    listed = folded.recommend(k=8).to_pylist()
    for name, remainder, given in (("even", 0, {0, 6, 14, 20}), ("odd", 1, {1, 9, 15, 33})):
        items = [row["item"] for row in listed if row["user"] == name]
        assert [item % 2 for item in items] == [remainder] * 8
        assert not given & set(items)
    kept = folded.recommend(k=ITEMS, history="keep").to_pylist()
    assert {row["item"] for row in kept if row["user"] == "even"} >= {0, 6, 14, 20}
    scores = [row["score"] for row in kept if row["user"] == "even"]
    assert scores == sorted(scores, reverse=True)
    users = run.fold_in({"new": ["u1", "u7", "u31"]}, entity="item").recommend(k=10)
    assert users.column_names == ["item", "rank", "user", "score"]
    assert [int(user[1:]) % 2 for user in users["user"].to_pylist()] == [1] * 10


def test_the_scores_are_inner_products_and_the_run_stays_as_it_is(run: cove.Run) -> None:
    before = run.score(["u3"] * 4, [0, 1, 2, 3])
    folded = run.fold_in({"x": [0, 2]})
    vector = np.array(folded.embeddings()["embedding"][0].as_py())
    items = {row["original_id"]: np.array(row["embedding"]) for row in run.embeddings("item").to_pylist()}
    for row in folded.recommend(k=5).to_pylist():
        assert row["score"] == pytest.approx(float(vector @ items[row["item"]]), abs=1e-5)
    assert run.score(["u3"] * 4, [0, 1, 2, 3]).tolist() == before.tolist()


def test_the_command_recommends_for_the_interactions_of_a_file(run: cove.Run, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("who,what\nanna,0\nanna,6\nbert,1\nanna,20\nbert,77\n")
    with pytest.raises(
        ConfigError, match=r"interactions: 1 of 5 ids were not in the training split, or are too rare there, such as 77"
    ):
        run.fold_in(path, user="who", item="what")
    cli.dispatch(
        ["recommend", f"run={run.folder}", f"interactions={path}", "user=who", "item=what", "unknown=skip", "k=3",
         "device=cpu", f"output={tmp_path / 'lists'}"]
    )  # fmt: skip
    written = pq.read_table(tmp_path / "lists")
    folded = run.fold_in(path, unknown="skip", user="who", item="what")
    assert written.to_pylist() == folded.recommend(k=3).to_pylist()
    assert written["user"].to_pylist() == ["anna"] * 3 + ["bert"] * 3
    cli.dispatch(
        ["recommend", f"run={run.folder}", f"interactions={path}", "user=who", "item=what", "unknown=skip", "k=3",
         "device=cpu", "fold_in_steps=7", "fold_in_learning_rate=0.3", f"output={tmp_path / 'lists'}"]
    )  # fmt: skip
    quickly = run.fold_in(path, unknown="skip", user="who", item="what", steps=7, learning_rate=0.3)
    assert pq.read_table(tmp_path / "lists").to_pylist() == quickly.recommend(k=3).to_pylist() != written.to_pylist()


def test_what_cannot_be_folded_in_is_refused_with_the_reason(run: cove.Run, data: Path) -> None:
    with pytest.raises(ConfigError, match="interactions: there are none"):
        run.fold_in({})
    with pytest.raises(ConfigError, match="interactions: training saw no item of the 2 interactions"):
        run.fold_in({"x": [777], "y": [888]}, unknown="skip")
    empty = data.parent / "empty.csv"
    empty.write_text("user_id,item_id\n")
    with pytest.raises(ConfigError, match=r"interactions = .*empty\.csv: has no rows"):
        run.fold_in(empty)
    with pytest.raises(ConfigError, match=r"interactions: user 'u3' and 0 others were trained; give new ids only"):
        run.fold_in({"x": [2], "u3": [2, 4]})
    with pytest.raises(ConfigError, match=r"interactions: ids of users must be numbers or text, one a row; 1 are null"):
        run.fold_in(pa.table({"user_id": ["x", None], "item_id": [2, 4]}))
    with pytest.raises(ConfigError, match=r"interactions: ids of items must be numbers or text.* of type list"):
        run.fold_in(pa.table({"user_id": ["x"], "item_id": [[2, 4]]}))
    with pytest.raises(ConfigError, match="interactions = absent: no such file"):
        run.fold_in("absent")
    with pytest.raises(ConfigError, match=r"model = DeepFM: learns from labels, and the data .* hold positives only"):
        cove.train(data, "deepfm", output=data.parent / "runs" / "unlabelled", settings=SMALL)
    with pytest.raises(ConfigError, match=r"users: the ids of users in the data are of type int64: .*newcomer"):
        as_ids(pa.array(["7", "newcomer"]), pa.int64())
    with pytest.raises(ConfigError, match="interactions: no column user = user_id, item = item_id; there are a"):
        run.fold_in(pa.table({"a": [1]}))
    small = {**SMALL, "trainer.max_steps": 1, "trainer.epochs": 1}
    graph = cove.train(data, "lightgcn", output=data.parent / "runs" / "lightgcn", settings=small)
    with pytest.raises(ConfigError, match="fold_in: not with LightGCN: its vectors are propagated over the graph"):
        graph.fold_in({"x": [0]})
    with pytest.raises(ConfigError, match=r"unknown = oov_row: the run was trained with embeddings.id_dropout=0"):
        graph.recommend(["nobody"], unknown="oov_row")


def test_the_out_of_vocabulary_row_serves_unseen_users_by_what_most_users_like(run: cove.Run, tmp_path: Path) -> None:
    listed = run.recommend(["nobody", "u3", "else"], k=ITEMS, unknown="oov_row")
    lists = {user: [row["item"] for row in listed.to_pylist() if row["user"] == user] for user in ("nobody", "else")}
    assert lists["nobody"] == lists["else"] and len(lists["else"]) == ITEMS
    tables = run.session.inference.model.tables.state_dict()
    vector = tables["embeddings.user_id.weight"][-1]
    items = {row["original_id"]: torch.tensor(row["embedding"]) for row in run.embeddings("item").to_pylist()}
    assert lists["nobody"] == sorted(items, key=lambda item: -float(vector @ items[item]))
    popular = run.recommend(["nobody"], k=12, unknown="popular")
    assert popular["score"].null_count == 12
    assert len(set(popular["item"].to_pylist()) & set(lists["nobody"][:12])) >= 8
    scores = run.score(["nobody", "u3"], [0, 0], unknown="oov_row")
    assert scores[0] == pytest.approx(float(vector @ items[0]), abs=1e-6)
    pairs = pa.table({"user_id": ["nobody", "u3"], "item_id": [0, 0]})
    assert run.predict(pairs, unknown="oov_row")["score"].to_pylist() == scores.tolist()
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    cli.dispatch(
        ["predict", f"run={run.folder}", f"rows={tmp_path / 'pairs.parquet'}", "unknown=oov_row", "device=cpu",
         f"output={tmp_path / 'scored.parquet'}"]
    )  # fmt: skip
    assert pq.read_table(tmp_path / "scored.parquet")["score"].to_pylist() == scores.tolist()
    cli.dispatch(
        ["recommend", f"run={run.folder}", "users=[u3,nobody]", "unknown=oov_row", "k=4", "device=cpu",
         f"output={tmp_path / 'lists'}"]
    )  # fmt: skip
    written = pq.read_table(tmp_path / "lists" / "part-unknown.parquet")
    assert written["item"].to_pylist() == lists["nobody"][:4]
    assert written["score"].null_count == 0
