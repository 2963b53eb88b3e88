"""Data with several labels: one is learned, or several jointly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from cove_dist.api import Run
from cove_dist.errors import ConfigError
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.model import build_ctr_model
from cove_dist.tasks.registry import task_of
from cove_dist.training.program import train
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from tests.configurations import COVE, small_run
from tests.unit.data.prepare_helpers import prepare_custom, read_decoded, some_rows, write_csv

NAMES = ("user", "item", "click", "time", "like")
JOINT = ("ctr.label=[like,click]", "ctr.label_weights=[2.0,0.5]")


def rows() -> list[tuple]:
    return [(*row, row[0] * row[1] % 3 % 2) for row in some_rows(users=12, per_user=30)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    prepare_custom(
        write_csv(folder / "raw.csv", rows(), NAMES), folder / "out", label=("click", "like"), split="random"
    )
    return folder / "out"


def test_all_labels_are_kept(labelled: Path) -> None:
    schema = Schema.load(labelled)
    assert schema.labels == {"click": "label", "like": "like"}
    written = [row for split in read_decoded(labelled).values() for row in split]
    found = sorted((row["user_id"], row["item_id"], row["label"], row["like"]) for row in written)
    assert found == sorted((user, item, click, like) for user, item, click, _, like in rows())
    for chosen, columns in ((["like"], ["like"]), (["like", "click"], ["like", "label"])):
        [batch] = build_loader(labelled, schema.learning(chosen), "test", 1000)
        stored = [[row[column] for column in columns] for row in read_decoded(labelled)["test"]]
        assert batch.labels.tolist() == (stored if len(columns) > 1 else [row[0] for row in stored])


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "raw.csv", [*rows(), (1, 2, 1, 4, 3)], NAMES)
    with pytest.raises(DataError, match=r"column 'like': label is not 0 or 1 .* in 1 row, first '3'"):
        prepare_custom(raw, tmp_path / "out", label=("click", "like"))
    with pytest.raises(DataError, match=r"data.implicit = true: .* data.label names 2 labels"):
        prepare_custom(raw, tmp_path / "out", label=("click", "like"), implicit=True)
    with pytest.raises(DataError, match=r"column 'like': data.label and data.dense both name it"):
        prepare_custom(raw, tmp_path / "out", label=("click", "like"), dense=("like",))
    with pytest.raises(DataError, match=r"column 'click': data.label names it twice .* Name every column once"):
        prepare_custom(raw, tmp_path / "out", label=("click", "click"))
    with pytest.raises(DataError, match=r"data.label = \[\]: names no column"):
        prepare_custom(raw, tmp_path / "out", label=())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ctr.label=buy"], "ctr.label = buy: fixture has no such label; allowed: click, like"),
        (["ctr.label=[like,like]"], "must name one label, or several different ones"),
        (["ctr.label=[like,click]", "ctr.label_weights=[1]"], "must be as many as the labels of ctr.label"),
        (["ctr.label=like", "ctr.label_weights=[2]"], "ctr.label_weights = .*would do nothing: acts with several"),
        (["ctr.label=like", "trainer.early_stopping.metric=auc/like"], "metric = auc/like: allowed are auc, "),
    ],
)
def test_settings_of_labels_that_do_not_fit_are_refused(labelled: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config, _ = load_run_config(small_run(labelled, "unused", *overrides))
        schema = Schema.load(labelled)
        task_of(config).check_data(config, Schema(**{**vars(schema), "name": "fixture"}))


def test_joint_training_sums_the_labels_losses(labelled: Path) -> None:
    """Each by its own head, whose gradients are those of its label alone."""
    config, _ = load_run_config(small_run(labelled, "unused", *JOINT))
    objective = build_ctr_model(config, Schema.load(labelled)).objective
    head = objective.head.eval()
    fields, dense, first = torch.randn(9, 2, 8), torch.empty(9, 0), torch.randn(9, 2)
    logits = head(fields, dense, first)
    assert logits.shape == (9, 2)
    torch.testing.assert_close(logits[:, 1], head.heads[1](fields, dense, first))
    [batch] = build_loader(labelled, config.ctr.of(Schema.load(labelled)), "test", 1000)
    values = torch.randn(len(batch), 2, requires_grad=True)
    total, parts = objective._task_loss(values, batch)
    like, click = (log_loss(batch.labels[:, i], values[:, i].sigmoid().detach()) for i in range(2))
    assert parts["task_like"].item() == pytest.approx(like, rel=1e-5)
    assert total.item() == pytest.approx(2 * like + 0.5 * click, rel=1e-5)


def test_a_run_of_two_labels_is_evaluated_and_scored_by_label(labelled: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    train(small_run(labelled, run_folder, *JOINT, *COVE, "trainer.epochs=1", "trainer.early_stopping.metric=auc/click"))
    evaluated = evaluate_run([f"run={run_folder}", "device=cpu", "save_predictions=true"])
    assert evaluated.best_by == "auc/click"
    assert evaluated.protocol["label"] == "like" and evaluated.protocol["labels"] == ["like", "click"]
    table = pq.read_table(run_folder / "predictions_test")
    for label in ("like", "click"):
        labels, scores = table[f"label_{label}"].to_numpy(), table[f"score_{label}"].to_numpy()
        assert evaluated.metrics[f"auc/{label}"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
        assert evaluated.metrics[f"logloss/{label}"] == pytest.approx(log_loss(labels, scores.astype(float)), rel=1e-4)
    assert evaluated.metrics["auc"] == evaluated.metrics["auc/like"]
    run = Run(run_folder)
    users, items = table["user"].to_pylist(), table["item"].to_pylist()
    known = [i for i, item in enumerate(items) if item < 200]
    users, items = [users[i] for i in known], [items[i] for i in known]
    click = run.score(users, items, label="click")
    np.testing.assert_allclose(click, table["score_click"].to_numpy()[known], rtol=1e-5)
    predicted = run.predict(pa.table({"user_id": users, "item_id": items}))
    assert predicted.column_names == ["user_id", "item_id", "score_like", "score_click", "score"]
    np.testing.assert_array_equal(predicted["score_click"], click)
    np.testing.assert_array_equal(predicted["score"], predicted["score_like"])
    with pytest.raises(ConfigError, match="label = buy: not a label of the run; allowed: like, click"):
        run.score(users, items, label="buy")
