"""New users and new items after a warm start: NDCG@10 by start of the new rows, before training and after one epoch.

Yesterday's data are the earlier part of a data set, today's are all of it. A run is trained on yesterday's; others
start from it on today's, once for each ``warm_start.new_rows``; one is trained on today's from random. The test split
has the last item of every user. New users and new items are those that yesterday's training split does not have. A row
is ranked among all items that the user has not. Seconds are those of the training that a line took, with validation
after every epoch; ``popular`` ranks items by their training rows.

    python benchmarks/warm_start.py --movielens u.data --toys data/raw/toys --json results/warm_start/warm_start.json

MovieLens-100K is cut by the clock: yesterday is the first 80 % of its rows. Toys has an order for each user, no clock:
yesterday is the first 70 % of each user's rows, without a tenth of the users and a tenth of the items, drawn at random.
The model is BPRMF with codebooks that learn next to it (alpha = 0), for new_rows=code.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measured import write_measurements
from rich.console import Console
from rich.table import Table

import cove_dist as cove
from cove_dist.runs import SUMMARY_FILE
from data_pipeline.history import History
from data_pipeline.id_tables import read_original_ids
from data_pipeline.schema import ENTITIES, SPLITS, Entity, Schema

STARTS = ("random", "zero", "mean", "code", "fold_in")
K = 10
COLUMNS = {"user": "user", "item": "item", "time": "time", "time_unit": "counter", "label": None, "candidates": 99}
SETTINGS = {
    "model": "bprmf",
    "quantizer": "cove",
    "quantizer.user_levels": [64],
    "quantizer.item_levels": [64],
    "quantizer.alpha": 0.0,
    "quantizer.beta": 0.0,
    "trainer.device": "cpu",
    "trainer.early_stopping.metric": "full_ndcg@10",
    "trainer.early_stopping.patience": 5,
    "trainer.checkpoint.keep": 1,
    "evaluation.rank_validation": ["full"],
    "trainer.optimizer.learning_rate": 0.006,
    "embeddings.optimizer.learning_rate": 0.006,
    "embeddings.optimizer.weight_decay": 1e-5,
}
Record = dict[str, Any]
Vectors = dict[Entity, np.ndarray]  # [ids, d]


def movielens(path: Path) -> tuple[pa.Table, np.ndarray]:
    """Read ``u.data`` or ``ml-100k.inter``; return the rows and which are yesterday's."""
    lines = [line.split() for line in path.read_text().splitlines()]
    users, items, _, times = np.array([line for line in lines if line[0].isdigit()], dtype=float).T.astype(np.int64)
    return pa.table({"user": users, "item": items, "time": times}), times < np.quantile(times, 0.8)


def toys(path: Path, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Read ``Toys_and_Games.txt``; return the rows and which are yesterday's."""
    lists = [np.array(line.split(), np.int64) for line in (path / "Toys_and_Games.txt").read_text().splitlines()]
    lengths = [len(each) - 1 for each in lists]
    users, items = np.repeat([each[0] for each in lists], lengths), np.concatenate([each[1:] for each in lists])
    places = np.concatenate([np.arange(length) for length in lengths])
    draw = np.random.default_rng(seed)
    new = [draw.choice(each := np.unique(ids), len(each) // 10, replace=False) for ids in (users, items)]
    earlier = places < np.floor(0.7 * np.repeat(lengths, lengths))
    rows = pa.table({"user": users, "item": items, "time": places})
    return rows, earlier & ~np.isin(users, new[0]) & ~np.isin(items, new[1])


def prepare(rows: pa.Table, earlier: np.ndarray, folder: Path) -> tuple[Path, Path]:
    """Prepare yesterday's and today's data."""
    parts = {"yesterday": rows.filter(pa.array(earlier)), "today": rows}
    for name, part in parts.items():
        pq.write_table(part, folder / f"{name}.parquet")
    made = [cove.prepare(folder / f"{name}.parquet", folder / name, settings=COLUMNS) for name in parts]
    return made[0], made[1]


def seen(data: Path, entity: str) -> np.ndarray:
    column = Schema.load(data).entity(entity)
    return read_original_ids(data, column.table_name).to_numpy()[: column.num_seen]


def groups(yesterday: Path, today: Path) -> dict[str, np.ndarray]:
    """Return which test rows have a new user, a new item, or neither; items without training rows are left out."""
    table, schema = pq.read_table(today / "test"), Schema.load(today)
    users, items = (table[f"{entity}_id"].to_numpy() for entity in ("user", "item"))
    known = (users < schema.entity("user").num_seen) & (items < schema.entity("item").num_seen)
    new = {}
    for entity, ids in (("user", users), ("item", items)):
        original = read_original_ids(today, schema.entity(entity).table_name).to_numpy()
        new[entity] = ~np.isin(original[ids], seen(yesterday, entity))
    return {"users": known & new["user"], "items": known & new["item"], "old": known & ~new["user"] & ~new["item"]}


def ndcg(vectors: Vectors, today: Path, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return NDCG@10 over all items of the test rows of each group, by brute force."""
    table = pq.read_table(today / "test")
    users, items = (table[f"{entity}_id"].to_numpy() for entity in ("user", "item"))
    histories = [History.load(today, split) for split in SPLITS if split != "test"]
    gains = np.zeros(len(users))
    for row in np.flatnonzero(np.logical_or.reduce(list(rows.values()))):
        scores = vectors["item"] @ vectors["user"][users[row]]
        own = scores[items[row]]
        for history in histories:
            theirs = history.items[slice(*history.offsets[users[row] : users[row] + 2])]
            scores[theirs[theirs < len(scores)]] = -np.inf
        place = np.sum(scores > own) + (np.sum(scores == own) - 1) / 2  # ties: the expected place
        gains[row] = 1 / np.log2(place + 2) if place < K else 0
    return {name: float(gains[mask].mean()) if mask.any() else float("nan") for name, mask in rows.items()}


def train(output: Path, data: Path, settings: Record) -> tuple[cove.Run, float]:
    """Train; return the run and its seconds."""
    rest = {key: value for key, value in settings.items() if key not in ("model", "quantizer")}
    start = time.perf_counter()
    run = cove.train(data, settings["model"], settings["quantizer"], output, rest)
    return run, time.perf_counter() - start


def compare(rows: pa.Table, earlier: np.ndarray, folder: Path, seed: int, settings: Record) -> Record:
    """Return the records of a data set and a seed."""
    yesterday, today = prepare(rows, earlier, folder)
    test = groups(yesterday, today)
    base = {**SETTINGS, "seed": seed, **settings}
    first, first_seconds = train(folder / "first", yesterday, base)
    again, seconds = train(folder / "again", today, base)
    found = [
        {
            "start": "retrain",
            "epochs": summary_of(again)["epoch"],
            "seconds": seconds,
            **ndcg(vectors_of(again, "best"), today, test),
        }
    ]
    found.append({"start": "popular", "epochs": 0, "seconds": 0.0, **ndcg(popular(today), today, test)})
    for start in STARTS:
        more = {"warm_start.run": str(first.folder), "warm_start.new_rows": start, "warm_start.checkpoint": "best"}
        limits = {"trainer.epochs": 1, "trainer.checkpoint.keep": 2}
        began = time.time()
        run, seconds = train(folder / start, today, base | more | limits)
        after = ndcg(vectors_of(run, "newest"), today, test)
        begun = (run.folder / "checkpoints" / "step_00000000" / "manifest.json").stat().st_mtime - began
        (run.folder / "checkpoints" / f"step_{summary_of(run)['step']:08d}").rename(run.folder / "later")
        found.append({"start": start, "epochs": 0, "seconds": begun, **ndcg(vectors_of(run, "newest"), today, test)})
        found.append({"start": start, "epochs": 1, "seconds": seconds, **after})
    return {
        "yesterday": {"epochs": summary_of(first)["epoch"], "seconds": first_seconds, "rows": int(earlier.sum())},
        "today": {"rows": len(earlier)},
        "test_rows": {name: int(mask.sum()) for name, mask in test.items()},
        "runs": found,
    }


def vectors_of(run: cove.Run, checkpoint: Literal["best", "newest"]) -> Vectors:
    """Return the vectors of users and items of a checkpoint."""
    loaded = cove.Run(run.folder, checkpoint)
    return {e: np.stack(loaded.embeddings(e)["embedding"].to_numpy(zero_copy_only=False)) for e in ENTITIES}


def popular(today: Path) -> Vectors:
    """Return vectors by which all users rank items by their training rows."""
    history = History.load(today, "train")
    counts = np.bincount(history.items, minlength=Schema.load(today).entity("item").num_seen)
    return {"user": np.ones((len(history), 1)), "item": counts[:, None].astype(float)}


def summary_of(run: cove.Run) -> Record:
    return json.loads((run.folder / SUMMARY_FILE).read_text())


def shown(results: Mapping[str, list[Record]]) -> Table:
    """Tabulate the means over seeds."""
    table = Table("data", "start", "epochs", "new users", "new items", "others", "seconds", title="NDCG@10, all items")
    for name, records in results.items():
        for runs in zip(*(record["runs"] for record in records), strict=True):
            mean = {key: np.mean([run[key] for run in runs]) for key in runs[0] if key != "start"}
            values = [f"{mean[key]:.4f}" for key in ("users", "items", "old")]
            table.add_row(name, runs[0]["start"], f"{mean['epochs']:.3g}", *values, f"{mean['seconds']:.0f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=Path, help="u.data, or RecBole's ml-100k.inter")
    parser.add_argument("--toys", type=Path, help="the folder of Toys_and_Games.txt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100, help="at most, of a training from random")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: dict[str, list[Record]] = {}
    for seed in range(given.seeds):
        for name in ("movielens", "toys"):
            path = getattr(given, name)
            if path is None:
                continue
            rows, earlier = movielens(path) if name == "movielens" else toys(path, seed)
            with tempfile.TemporaryDirectory() as folder:
                record = compare(rows, earlier, Path(folder), seed, {"trainer.epochs": given.epochs})
            results.setdefault(name, []).append({"seed": seed, **record})
            if given.json is not None:
                given.json.parent.mkdir(parents=True, exist_ok=True)
                write_measurements(given.json, results)
    Console(width=110).print(shown(results))


if __name__ == "__main__":
    main()
