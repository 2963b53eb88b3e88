"""The Python API on small runs of every task, each answer against an independent one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

import cove_dist as cove
from cove_dist import cli
from cove_dist.errors import ConfigError
from tests.end_to_end.python_api.conftest import ITEMS, USERS


def rows_of(log: Path) -> list[dict[str, str]]:
    with log.open() as file:
        return list(csv.DictReader(file))


def items_of(log: Path, user: str) -> set[int]:
    return {int(row["iid"]) for row in rows_of(log) if row["uid"] == user}


def test_metrics_are_those_that_training_and_evaluation_wrote(ctr: cove.Run) -> None:
    tested = ctr.evaluate("test")
    assert ctr.metrics["test"] == tested
    assert 0 < ctr.metrics["validation"]["auc"] <= 1
    again = cove.load(ctr.folder, device="cpu")
    assert again.metrics == ctr.metrics


def test_an_evaluation_takes_the_settings_of_the_command(ctr: cove.Run, cf: cove.Run) -> None:
    metrics = ctr.evaluate("validation", batch_size=100, by_frequency=False, save_predictions=True)
    assert set(metrics) < set(ctr.evaluate("validation"))
    saved = pq.read_table(ctr.folder / "predictions_validation")
    assert roc_auc_score(saved["label"], saved["score"]) == pytest.approx(metrics["auc"], abs=1e-5)
    with pytest.raises(ConfigError, match="save_predictions = true: for CTR models"):
        cf.evaluate(save_predictions=True)


def test_scores_of_new_rows_have_the_metrics_of_an_evaluation(ctr: cove.Run, log: Path) -> None:
    """The evaluation looks up row-wise sharded tables; a prediction reads the same checkpoint into whole ones."""
    data = log.parent / "ctr"
    tested = pa.concat_tables(pq.read_table(path) for path in sorted((data / "test").glob("*.parquet")))
    original = {}
    for name in ("user_id", "item_id", "device"):
        ids = pq.read_table(data / "ids" / f"{name}.parquet")["original_id"]
        original[name] = ids.take(tested[name])
    rows = pa.table({**original, "price": tested["price"], "label": tested["label"]})
    scored = cove.load(ctr.folder, device="cpu").predict(rows)
    metrics = ctr.evaluate("test")
    labels, scores = scored["label"].to_numpy(), scored["score"].to_numpy()
    assert len(scored) == len(rows)
    assert roc_auc_score(labels, scores) == pytest.approx(metrics["auc"], abs=1e-5)
    assert log_loss(labels, scores.astype(np.float64)) == pytest.approx(metrics["logloss"], abs=1e-5)


def test_click_recommendations_are_the_best_scores_of_items_that_the_user_has_not(ctr: cove.Run, log: Path) -> None:
    context: dict[str, Any] = {"device": "a", "price": 0.5}
    columns = {name: [value] * ITEMS for name, value in context.items()}
    scores = ctr.score(users=["u3"] * ITEMS, items=list(range(ITEMS)), columns=columns)
    order = np.argsort(-scores, kind="stable")
    expected = [int(item) for item in order if item not in items_of(log, "u3")]
    assert ctr.recommend(["u3"], k=ITEMS, columns=context)["item"].to_pylist() == expected
    kept = ctr.recommend(["u3"], k=5, columns=context, history="keep")
    assert kept["item"].to_pylist() == order[:5].tolist()
    assert kept["score"].to_pylist() == pytest.approx(scores[order[:5]])
    assert len(ctr.recommend("all", k=2, columns=context)) == 2 * USERS
    with pytest.raises(ConfigError, match="the model also reads device, price; give them"):
        ctr.recommend(["u3"])


def test_recommendations_are_the_largest_inner_products(cf: cove.Run, log: Path) -> None:
    users, items = (
        {row["original_id"]: np.array(row["embedding"]) for row in cf.embeddings(entity).to_pylist()}
        for entity in ("user", "item")
    )
    products = {item: float(users["u7"] @ vector) for item, vector in items.items() if item not in items_of(log, "u7")}
    expected = sorted(products, key=lambda item: -products[item])[:6]
    listed = cf.recommend(["u7"], k=6)
    assert listed["item"].to_pylist() == expected
    assert listed["rank"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert listed["score"].to_pylist() == pytest.approx([products[item] for item in expected], abs=1e-7)
    assert cf.score(["u7"] * 6, expected) == pytest.approx([products[item] for item in expected], abs=1e-7)


def test_the_command_recommends_the_same(cf: cove.Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["recommend", f"run={cf.folder}", "users=[u7,u1]", "k=6", "device=cpu"])
    written = pq.read_table(cf.folder / "recommendations")
    listed = cf.recommend(["u1", "u7"], k=6)
    assert written["item"].to_pylist() == listed["item"].to_pylist()
    assert written["score"].to_pylist() == pytest.approx(listed["score"].to_pylist(), abs=1e-7)


@pytest.mark.parametrize("command", ["ctr", "sequential"])
def test_the_command_recommends_for_every_task(
    command: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run: cove.Run = request.getfixturevalue(command)
    columns = {"device": "a", "price": 0.5} if command == "ctr" else {}
    given = ["columns={device:a,price:0.5}"] if columns else []
    cli.main(["recommend", f"run={run.folder}", "users=[u1,nobody]", "k=3", "device=cpu", "unknown=popular", *given])
    written = pq.read_table(run.folder / "recommendations")
    assert written.to_pylist() == run.recommend(["u1", "nobody"], k=3, unknown="popular", columns=columns).to_pylist()
    assert written["user"].to_pylist() == ["u1"] * 3 + ["nobody"] * 3


def test_ids_that_training_did_not_see_are_refused_left_out_or_get_the_most_frequent_items(
    cf: cove.Run, log: Path
) -> None:
    with pytest.raises(ConfigError, match=r"users: 1 of 2 ids were not in .*, or are too rare there, such as 'nobody'"):
        cf.recommend(["u1", "nobody"])
    assert set(cf.recommend(["u1", "nobody"], unknown="skip")["user"].to_pylist()) == {"u1"}
    popular = cf.recommend(["nobody"], k=3, unknown="popular")
    assert popular["score"].to_pylist() == [None] * 3
    trained = pq.read_table(log.parent / "cf" / "train")["item_id"].to_numpy()
    counts = np.bincount(trained)
    originals = pq.read_table(log.parent / "cf" / "ids" / "item_id.parquet")["original_id"].to_pylist()
    best = sorted(range(len(counts)), key=lambda item: -counts[item])[:3]
    assert popular["item"].to_pylist() == [originals[item] for item in best]
    scores = cf.score(["u1", "nobody"], [3, 3], unknown="skip")
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])


def test_a_sequence_is_continued_as_that_of_the_user_who_has_it(sequential: cove.Run, log: Path) -> None:
    times = {int(row["ts"]): (row["uid"], int(row["iid"])) for row in rows_of(log)}
    newest: list[int] = []
    for ts in sorted(times, reverse=True):  # the newest of each distinct item, as implicit feedback has them
        user, item = times[ts]
        if user == "u5" and item not in newest:
            newest.append(item)
    of_user = sequential.recommend(["u5"], k=4)
    sequence = data_sequence(log, "u5")
    assert set(sequence) <= set(newest)
    kept = sequential.recommend(sequences=[sequence], k=ITEMS, history="keep")
    scored = dict(zip(kept["item"].to_pylist(), kept["score"].to_pylist(), strict=True))
    assert len(newest) > 30 and len(sequence) == 11, "most of the items are in older sequences"
    new = [item for item in kept["item"].to_pylist() if item not in newest]
    assert of_user["item"].to_pylist() == new[:4]
    assert of_user["score"].to_pylist() == pytest.approx([scored[item] for item in new[:4]], abs=1e-6)
    given = sequential.recommend(sequences=[sequence], k=4)
    assert given["item"].to_pylist() == [item for item in kept["item"].to_pylist() if item not in sequence][:4]
    assert sorted(kept["item"].to_pylist()) == list(range(ITEMS))
    items = kept["item"].to_pylist()
    assert sequential.score(sequences=[sequence] * ITEMS, items=items) == pytest.approx(
        kept["score"].to_pylist(), abs=1e-6
    )


def data_sequence(log: Path, user: str) -> list[int]:
    """The input and target of a user's row of the test split, in original ids."""
    data = log.parent / "sequences"
    users = pq.read_table(data / "ids" / "user_id.parquet")["original_id"].to_pylist()
    items = pq.read_table(data / "ids" / "item_id.parquet")["original_id"].to_pylist()
    [row] = pq.read_table(data / "test", filters=[("user_id", "=", users.index(user))]).to_pylist()
    return [items[item] for item in [*row["input"], *row["target"]]]


def test_codes_are_those_of_the_export(cf: cove.Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["export", f"run={cf.folder}", "device=cpu"])
    written = pq.read_table(cf.folder / "codes" / "item").drop_columns(["entity"])
    assert cf.codes("item").to_pylist() == written.to_pylist()
    with pytest.raises(ConfigError, match="no quantizer of users; it has: item"):
        cf.codes("user")


def test_the_command_predict_scores_a_file_and_counts_what_it_leaves_out(
    ctr: cove.Run, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (log.parent / "new.csv").write_text("uid,iid,device,price,note\nu1,4,a,0.5,x\nnobody,4,a,0.5,y\nu2,4,new,0.1,z\n")
    cli.main(
        ["predict", f"run={ctr.folder}", f"rows={log.parent}/new.csv", "user=uid", "item=iid", "unknown=skip",
         "device=cpu"]
    )  # fmt: skip
    assert "scored 2 rows, left out 1" in capsys.readouterr().out
    written = pq.read_table(ctr.folder / "scored.parquet")
    assert written["note"].to_pylist() == ["x", "z"]
    expected = ctr.score(["u1"], [4], columns={"device": ["a"], "price": [0.5]})
    assert written["score"].to_pylist()[0] == pytest.approx(float(expected[0]))
    with pytest.raises(ConfigError, match=r"no column user_id, item_id; there are uid, .*; name them by user=COLUMN"):
        ctr.predict(log.parent / "new.csv")


def test_what_cannot_be_asked_is_refused(ctr: cove.Run, sequential: cove.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not read sequences"):
        ctr.recommend(sequences=[[1, 2]])
    with pytest.raises(ConfigError, match="embeddings of items only"):
        sequential.embeddings("user")
    with pytest.raises(ConfigError, match=r"config\.yaml there"):
        cove.load(tmp_path)
    with pytest.raises(ConfigError, match="unknown = 'bogus': allowed: error, skip, oov_row"):
        ctr.score(["u1"], [1], unknown="bogus")
    with pytest.raises(ConfigError, match="unknown = 'bogus': allowed: error, skip, popular, oov_row"):
        ctr.recommend(["u1"], unknown="bogus")
    with pytest.raises(ConfigError, match="history = 'all': allowed: remove, keep"):
        ctr.recommend(["u1"], history="all")
    with pytest.raises(ConfigError, match="k = 0: allowed: whole numbers from 1"):
        ctr.recommend(["u1"], k=0)
    with pytest.raises(ConfigError, match="neither a prepared folder nor one of"):
        cove.train(tmp_path)
