"""CTR models of FuxiCTR 2.3.10 on a data set prepared by this project: the baselines for quality and for speed.

They run in a separate virtual environment and import nothing of this project::

    python3 -m venv fuxictr && fuxictr/bin/pip install torch==2.13.0 && \\
        fuxictr/bin/pip install -r benchmarks/requirements-fuxictr.txt
    fuxictr/bin/python benchmarks/fuxictr_ctr.py --model dcn --data DIR --seeds 0 1 2 --json FILE
    fuxictr/bin/python benchmarks/fuxictr_ctr.py --model dcn --data DIR --speed-epochs 10 --json FILE

What is FuxiCTR's: the layers, their initialization, `BaseModel`'s loss, train step (gradients clipped to norm 10), fit
loop, early stopping and checkpoint, the in-memory data loader, AUC, logloss and GAUC. What is ours:
``fuxictr_models.py`` composes the layers as the published classes do, because the wheel has no model zoo.

Fields are the user id and the item id. Ids that training never saw share one row, which the loss never trains.
NDCG@k and HR@k are means over the users with a positive in the split; rows of equal score count with their expected
value over all their orders, as in this project.

The learning rate is constant. FuxiCTR's default (``--lr-decay --patience 2``) divides it by ten after the first epoch
without a gain. On MovieLens-100K that is the second, so a run may stop there, hardly trained: a weaker baseline.

Where the linear layers start matters on MovieLens-100K: ``--torch-init`` keeps torch's start, this project's too.
FuxiCTR's tables start as N(0, 1e-4²), this project's as N(0, 0.01²).

FILE is written after every seed; a second run with the same settings does the missing seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from fuxictr.metrics import evaluate_metrics, gAUC
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything
from fuxictr_data import SPLITS, Prepared, convert
from fuxictr_models import MODELS, RecordedModel, Settings


def fit(name: str, data: Prepared, settings: Settings, seed: int, workers: int) -> tuple[RecordedModel, dict]:
    """Train to early stopping. Returns the model with its best weights, and the loaders of the three splits."""
    seed_everything(seed)
    files = (str(data.folder / f"{split}.npz") for split in SPLITS)
    sampling = {"batch_size": settings.batch_size, "shuffle": True, "num_workers": workers}  # only train is shuffled
    loaders = RankDataLoader(data.feature_map, "both", *files, **sampling)
    model = MODELS[name](data.feature_map, settings, data.folder)
    model.fit(loaders[0], epochs=settings.max_epochs, validation_data=loaders[1])
    return model, dict(zip(SPLITS, loaders, strict=True))


def ranking_metrics(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """GAUC over users with both labels, NDCG@{1,5,10} and HR@5 over users with a positive. All arrays ``[rows]``."""
    order = np.lexsort((-scores, users))
    starts = np.flatnonzero(np.diff(users[order])) + 1
    discounts = 1 / np.log2(np.arange(10) + 2)
    per_user, auc = [], np.zeros(2)
    for rows in np.split(order, starts):
        relevance = labels[rows]
        auc += gAUC(relevance, scores[rows])
        if relevance.any():
            positives = int(relevance.sum())
            expected = expected_relevance(relevance, scores[rows])
            dcg = np.cumsum(np.pad(expected[:10], (0, max(0, 10 - len(rows)))) * discounts)
            ideal = np.cumsum((np.arange(10) < positives) * discounts)
            per_user.append([*(dcg / ideal)[[0, 4, 9]], chance_of_hit(relevance, scores[rows], 5)])
    means = dict(zip(("NDCG@1", "NDCG@5", "NDCG@10", "HR@5"), np.mean(per_user, axis=0).tolist(), strict=True))
    return {"GAUC": auc[0] / auc[1], **means, "users": len(per_user)}


def expected_relevance(relevance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the expected relevance ``[rows]`` of one user's rows, best first: the mean over rows of equal score."""
    _, group = np.unique(-scores, return_inverse=True)
    return (np.bincount(group, relevance) / np.bincount(group))[group]


def chance_of_hit(relevance: np.ndarray, scores: np.ndarray, k: int) -> float:
    """That a positive is among the first k of one user's rows, best first, in a random order of ties."""
    if len(relevance) <= k:
        return float(relevance.any())
    tied, above = scores == scores[k - 1], scores > scores[k - 1]
    if relevance[above].any():
        return 1.0
    rows, positives, room = int(tied.sum()), int(relevance[tied].sum()), k - int(above.sum())
    return 1 - math.comb(rows - positives, room) / math.comb(rows, room)


def measure_quality(name: str, data: Prepared, settings: Settings, seed: int, workers: int) -> dict:
    model, loaders = fit(name, data, settings, seed, workers)
    result = {
        "best_epoch": int(np.argmax(model.validation_auc)) + 1,
        "epochs": len(model.validation_auc),
        "validation_auc": model.validation_auc,
        "step_ms": 1e3 * float(np.median(model.step_seconds)),
    }
    for split in SPLITS[1:]:
        columns = np.load(data.folder / f"{split}.npz")
        labels = columns[data.feature_map.labels[0]]
        scores = model.predict(loaders[split])
        metrics = evaluate_metrics(labels, scores, ["AUC", "logloss"])
        result[split] = {**metrics, **ranking_metrics(columns[data.user], labels, scores)}
    return result


def measure_speed(name: str, data: Prepared, settings: Settings, epochs: int, workers: int) -> dict:
    """Medians over the full-batch steps of ``epochs`` epochs, after one of warm-up."""
    full_steps = data.rows["train"] // settings.batch_size
    if full_steps == 0:
        raise SystemExit(f"--data: {data.rows['train']} training rows, fewer than a batch of {settings.batch_size}.")
    settings = replace(settings, max_epochs=epochs + 1, patience=epochs + 2)
    cpu, start = time.process_time(), time.perf_counter()
    model, _ = fit(name, data, settings, seed=0, workers=workers)
    cores = (time.process_time() - cpu) / (time.perf_counter() - start)
    step, epoch = np.median(model.step_seconds[full_steps:]), np.median(model.epoch_seconds[1:])
    return {
        "steps": len(model.step_seconds) - full_steps,
        "step_ms": 1e3 * step,
        "step_samples_per_s": settings.batch_size / step,
        "epoch_s": epoch,
        "epoch_samples_per_s": data.rows["train"] / epoch,
        "validation_s": np.median(model.validation_seconds[1:]),
        "cores_used": cores,  # well below the number of threads: other work shared the machine, measure again
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def open_results(path: Path, header: dict) -> dict:
    """Read the results in ``path``, or return empty ones; refuse a file written with other settings or data."""
    if not path.exists():
        return {**header, "seeds": {}, "speed": {}}
    results = json.loads(path.read_text())
    if differing := [key for key in header if results.get(key) != header[key]]:
        raise SystemExit(f"{path}: written with other {', '.join(differing)}. Choose another file for --json.")
    return results


def save_results(path: Path, results: dict) -> None:
    """Write atomically, so that an interrupted run keeps the finished seeds."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    partial.replace(path)


def print_tables(results: dict) -> None:
    names = ("AUC", "logloss", "GAUC", "NDCG@1", "NDCG@5", "NDCG@10", "HR@5")
    print("seed  best/epochs  val AUC  " + "  ".join(f"{name:>7}" for name in names))
    for seed, run in results["seeds"].items():
        values = "  ".join(f"{run['test'][name]:7.4f}" for name in names)
        print(f"{seed:>4}  {run['best_epoch']:>4}/{run['epochs']:<6}  {run['validation']['AUC']:7.4f}  {values}")
    for workers, run in results["speed"].items():
        print(f"loader workers {workers}: " + ", ".join(f"{name} {value:.5g}" for name, value in run.items()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="FuxiCTR's CTR models on a prepared data set")
    add = parser.add_argument
    add("--model", choices=MODELS, required=True)
    add("--data", type=Path, required=True, help="folder with schema.json")
    add("--json", type=Path, required=True, help="results; resumed when it exists")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--speed-epochs", type=int, help="measure throughput over so many epochs, no quality")
    add("--workers", type=int, default=0, help="loader processes; FuxiCTR's default is 1")
    add("--patience", type=int, default=Settings.patience)
    add("--l2", type=float, default=Settings.embedding_regularizer, help="FuxiCTR's embedding_regularizer")
    add("--torch-init", action="store_true", help="linear layers start as torch's do, not by FuxiCTR's Xavier normal")
    add("--bfloat16", action="store_true", help="autocast of all but the embeddings, as trainer.precision=bfloat16")
    add("--lr-decay", action="store_true", help="FuxiCTR's reduce_lr_on_plateau")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(2)
    settings = Settings(
        patience=args.patience,
        embedding_regularizer=args.l2,
        reduce_lr_on_plateau=args.lr_decay,
        torch_init=args.torch_init,
        bfloat16=args.bfloat16,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = convert(args.data, Path(folder))
        versions = {package: version(package) for package in ("fuxictr", "torch", "numpy")}
        header = {
            "model": args.model,
            "settings": asdict(settings),
            "rows": data.rows,
            "sha256": data.sha256,
            "versions": versions,
        }
        results = open_results(args.json, json.loads(json.dumps(header)))
        runs = [] if args.speed_epochs else [seed for seed in args.seeds if str(seed) not in results["seeds"]]
        for seed in runs:
            results["seeds"][str(seed)] = measure_quality(args.model, data, settings, seed, args.workers)
            save_results(args.json, results)
        if args.speed_epochs:
            speed = measure_speed(args.model, data, settings, args.speed_epochs, args.workers)
            results["speed"][str(args.workers)] = speed
            save_results(args.json, results)
    print_tables(results)


if __name__ == "__main__":
    main()
