"""Dense columns are transformed by what is learned from the training rows alone, in training and in serving alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import KBinsDiscretizer, QuantileTransformer, StandardScaler

from cove_dist.api import Run
from cove_dist.errors import ConfigError
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.training.program import train
from data_pipeline.errors import DataError
from data_pipeline.preparation.dense import DenseSettings
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from tests.configurations import small_run
from tests.unit.data.prepare_helpers import prepare_custom, read_decoded, some_rows, write_csv

DENSE = ("age", "price", "views", "score", "raw")
NAMES = ("user", "item", "label", "time", *DENSE)
SETTINGS = {
    "age": DenseSettings(fill="median", bins=4),
    "price": DenseSettings(fill="mean", clip=(None, 40.0), log="log1p"),
    "views": DenseSettings(quantiles=5, scale="none"),
    "score": DenseSettings(bins=3),
}


def rows() -> list[tuple]:
    numbers = np.random.default_rng(0).gamma(2.0, 9.0, (600, 5)).round(1)
    numbers[:, 2] = numbers[:, 2] // 8  # with ties
    made = []
    for row, values in zip(some_rows(users=20, per_user=30), numbers.tolist(), strict=True):
        values[0] = "" if row[3] % 7 == 0 else values[0]
        values[1] = "nan" if row[3] % 5 == 0 else values[1]
        values[3] = "" if row[3] % 6 == 0 else values[3]
        made.append((*row, *values))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    raw = write_csv(folder / "raw.csv", rows(), NAMES)
    prepare_custom(raw, folder / "out", dense=DENSE, dense_transforms=SETTINGS, split="random")
    return folder / "out"


def split(folder: Path, name: str) -> np.ndarray:
    """The raw numbers of a split ``[n, 5]``, in the order of its file, nan where they are missing."""
    given = {(user, item, time): values for user, item, _, time, *values in rows()}
    times = {(user, item): time for user, item, time in given}
    keys = [(row["user_id"], row["item_id"]) for row in read_decoded(folder)[name]]
    found = [given[(*key, times[key])] for key in keys]
    return np.array([[np.nan if value in ("", "nan") else value for value in row] for row in found], float)


def test_transforms_are_learned_from_training_and_are_those_of_scikit_learn(folder: Path) -> None:
    schema = Schema.load(folder)
    training, test = (split(folder, name).astype(np.float32).astype(float) for name in ("train", "test"))
    assert [column.name for column in schema.dense] == ["price", "views", "raw"]
    [batch] = build_loader(folder, schema, "test", 10_000)
    imputer = SimpleImputer(strategy="mean").fit(training[:, [1]])
    price = [np.log1p(np.minimum(imputer.transform(part[:, [1]]), 40.0)) for part in (training, test)]
    views = QuantileTransformer(n_quantiles=6, subsample=None).fit(training[:, [2]])
    expected = [
        StandardScaler().fit(price[0]).transform(price[1]),
        views.transform(test[:, [2]]),
        StandardScaler().fit(training[:, [4]]).transform(test[:, [4]]),
    ]
    np.testing.assert_allclose(batch.dense, np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-6)
    ages = SimpleImputer(strategy="median").fit(training[:, [0]])
    bins = KBinsDiscretizer(4, encode="ordinal", strategy="quantile", quantile_method="linear", subsample=None)
    bins.fit(ages.transform(training[:, [0]]))
    decoded = read_decoded(folder)["test"]
    assert [row["age"] for row in decoded] == bins.transform(ages.transform(test[:, [0]]))[:, 0].tolist()
    assert [row["score"] is None for row in decoded] == np.isnan(test[:, 3]).tolist()


def test_raw_numbers_are_served_as_they_were_trained(folder: Path, tmp_path: Path) -> None:
    train(small_run(folder, tmp_path / "run", "trainer.epochs=1", "embeddings.init_std=0.5"))
    evaluate_run([f"run={tmp_path / 'run'}", "device=cpu", "save_predictions=true"])
    table, raw = pq.read_table(tmp_path / "run" / "predictions_test"), split(folder, "test")
    run = Run(tmp_path / "run")
    columns = {name: [None if np.isnan(x) else x for x in raw[:, i]] for i, name in enumerate(DENSE)}
    known = [i for i, item in enumerate(table["item"].to_pylist()) if item < 200]
    users, items = ([table[name].to_pylist()[i] for i in known] for name in ("user", "item"))
    scores = run.score(users, items, columns={name: [values[i] for i in known] for name, values in columns.items()})
    np.testing.assert_allclose(scores, table["score"].to_numpy()[known], rtol=1e-5)
    with pytest.raises(ConfigError, match="columns: raw: a value is missing, not finite"):
        run.score(users[:1], items[:1], columns={name: [None if name == "raw" else 1.0] for name in DENSE})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"raw": DenseSettings(log="log1p")}, r"raw.log = log1p: undefined for -3, the least value"),
        (
            {"score": DenseSettings()},
            r"null value in .* Fill missing values by data\.dense_transforms\.score\.fill=mean",
        ),
        ({"nothing": DenseSettings(fill=0)}, "data.dense_transforms.nothing: no such column in data.dense, age, price"),
    ],
)
def test_data_that_do_not_fit_are_refused(tmp_path: Path, columns: dict, message: str) -> None:
    first, *rest = rows()
    raw = write_csv(tmp_path / "raw.csv", [(*first[:-1], -3), *rest], NAMES)
    with pytest.raises(DataError, match=message):
        prepare_custom(raw, tmp_path / "out", dense=DENSE, dense_transforms=SETTINGS | columns)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip": (3.0, 3.0)}, "the first must be less than the second"),
        ({"clip": (None, None)}, "bounds nothing"),
        ({"log": "log1p", "quantiles": 10}, "ranks are the same without it"),
        ({"bins": 5, "log": "signed"}, "not with log, which would do nothing"),
        ({"bins": 1}, "bins = 1: must be between 2 and 10000"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseSettings(**values)
