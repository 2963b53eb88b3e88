"""Small runs of every task, and the data that they were trained on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import cove_dist as cove
from cove_dist import cli

SMALL = {"embeddings.dim": 8, "trainer.batch_size": 512, "trainer.epochs": 2, "trainer.device": "cpu"}
CODES = {"quantizer.item_levels": [12, 4]}
ROW_WISE = {"embeddings.optimizer.name": "rowwise_adagrad", "embeddings.sharding.default": "row_wise"}
COLUMNS = {"user": "uid", "item": "iid", "time": "ts"}
USERS, ITEMS = 40, 60


@pytest.fixture(autouse=True)
def no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(cli.os, "_exit", end)


@pytest.fixture(scope="package")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's CSV file: users of text, items of numbers, a device, a price, and stars."""
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("api") / "log.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uid", "iid", "stars", "ts", "device", "price"])
        for second in range(2500):
            user, item = draw.integers(USERS), draw.integers(ITEMS)
            stars = 1 + (user + item) % 5
            rows.writerow([f"u{user}", item, stars, second, "abc"[draw.integers(3)], round(draw.random(), 3)])
    return path


@pytest.fixture(scope="package")
def ctr(log: Path) -> cove.Run:
    data = cove.prepare(
        log,
        log.parent / "ctr",
        settings={**COLUMNS, "label": None, "rating": "stars", "threshold": 4}
        | {"categorical": ["device"], "dense": ["price"]},
    )
    settings = {**SMALL, **CODES, **ROW_WISE, "quantizer.user_levels": [8, 3], "model.hidden_units": [16]}
    return cove.train(data, model="deepfm", quantizer="cove", output=log.parent / "runs" / "ctr", settings=settings)


@pytest.fixture(scope="package")
def cf(log: Path) -> cove.Run:
    data = cove.prepare(log, log.parent / "cf", settings={**COLUMNS, "label": None, "candidates": 10})
    return cove.train(data, "bprmf", "cove_items", log.parent / "runs" / "cf", settings={**SMALL, **CODES})


@pytest.fixture(scope="package")
def sequential(log: Path) -> cove.Run:
    settings = {**COLUMNS, "label": None, "sequences": 10}
    data = cove.prepare(log, log.parent / "sequences", settings=settings)
    small = {**SMALL, **CODES, "model.num_heads": 2, "model.num_layers": 1}
    return cove.train(data, "sasrec", "cove_items", log.parent / "runs" / "sequential", settings=small)
