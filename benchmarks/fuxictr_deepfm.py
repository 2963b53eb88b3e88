"""DeepFM of FuxiCTR 2.3.10 on a data set prepared by this project: the baseline for quality and for speed.

Runs in a virtual environment of its own (``requirements-fuxictr.txt``) and imports nothing of this project::

    python benchmarks/fuxictr_deepfm.py --data DIR --seeds 0 1 2 --json FILE
    python benchmarks/fuxictr_deepfm.py --data DIR --speed-only --steps 160 --json FILE

What is FuxiCTR's: the layers, their initialization, `BaseModel`'s loss, train step (gradients clipped to norm 10), fit
loop, early stopping and checkpoint, the in-memory data loader, AUC, logloss and GAUC. What is ours: the 20 lines of
`DeepFM`, because the wheel ships the layers and not the model zoo's DeepFM. They compose the layers as the published
class does: ``sigmoid(FM + MLP)``, where FM is one bias + first-order weights of every field + pairwise inner products
of the embeddings, and the MLP reads the same embeddings, concatenated, and ends in a linear layer with a bias.

Fields are the user id and the item id. Ids that training never saw share one row, which the loss never trains.
NDCG@k and HR@k are means over the users with a positive in the split; rows of equal score keep their stored order.

The learning rate is constant. FuxiCTR's default (``--lr-decay --patience 2``) divides it by ten after the first epoch
without a gain. On MovieLens-100K that is the second, so a run may stop there, hardly trained: a weaker baseline.

Where the linear layers start matters on MovieLens-100K: ``--torch-init`` keeps torch's start, this project's too.

FILE is written after every seed; a second run with the same settings does the missing seeds.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import resource
import tempfile
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuxictr.features import FeatureMap
from fuxictr.metrics import evaluate_metrics, gAUC
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Settings:
    """The paper's setting for CTR; the last five fields are ours. FuxiCTR's own: no regularizer, decay, patience 2."""

    embedding_dim: int = 64
    hidden_units: tuple[int, ...] = (1000, 1000, 1000)
    dropout: float = 0.1
    learning_rate: float = 1e-3
    batch_size: int = 5000
    embedding_regularizer: float = 0.0  # lambda of (lambda / 2) * ||table||^2, over the whole tables, every step
    reduce_lr_on_plateau: bool = False  # else the learning rate * 0.1 after every epoch without a better validation AUC
    torch_init: bool = False  # FuxiCTR's own: Xavier normal weights, zero biases
    patience: int = 3
    max_epochs: int = 100


@dataclass(frozen=True)
class Prepared:
    """A prepared folder in FuxiCTR's form: one ``.npz`` per split and the feature map that describes them."""

    folder: Path
    feature_map: FeatureMap
    user: str
    rows: dict[str, int]
    sha256: str  # of every column of every split: tells whether earlier results are of the same data


def convert(data: Path, folder: Path) -> Prepared:
    """Read the Parquet shards that ``data/schema.json`` lists; write ``folder/<split>.npz``, unseen ids as one row."""
    path = data / "schema.json"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. --data takes a folder written by launch/prepare.py.")
    schema = json.loads(path.read_text())
    fields = {c["role"]: c for c in schema["categorical"] if c["role"] in ("user", "item") and not c["sequence"]}
    num_seen = {fields[role]["name"]: fields[role]["num_seen"] for role in ("user", "item")}
    label = schema["label"]
    rows, digest = {}, hashlib.sha256()
    for split in SPLITS:
        files = schema["splits"][split]["files"]
        table = pa.concat_tables(pq.read_table(data / file, columns=[*num_seen, label]) for file in files)
        columns = {name: np.minimum(table[name].to_numpy(), reserved) for name, reserved in num_seen.items()}
        columns[label] = table[label].to_numpy()
        np.savez(folder / f"{split}.npz", **columns)
        for column in columns.values():
            digest.update(column.tobytes())
        rows[split] = table.num_rows
    feature_map = build_feature_map(schema["name"], folder, num_seen, label)
    return Prepared(folder, feature_map, fields["user"]["name"], rows, digest.hexdigest())


def build_feature_map(name: str, folder: Path, num_seen: dict[str, int], label: str) -> FeatureMap:
    """Categorical fields of ``num_seen + 1`` rows each, without a padding row: no field is a sequence."""
    feature_map = FeatureMap(name, str(folder))
    feature_map.features = OrderedDict(
        (field, {"source": "", "type": "categorical", "vocab_size": seen + 1}) for field, seen in num_seen.items()
    )
    feature_map.labels = [label]
    feature_map.num_fields = feature_map.get_num_fields()
    feature_map.set_column_index()
    return feature_map


class DeepFM(BaseModel):
    """FuxiCTR's layers composed as in its published DeepFM (Guo et al., 2017), with a record of every fit.

    Attributes (lists of float):
        validation_auc, validation_seconds: one value per epoch; the seconds include the checkpoint, if any.
        step_seconds: ``train_step`` on each full batch: forward, backward, clipping, Adam.
        epoch_seconds: each epoch, data loader included, validation left out.
    """

    def __init__(self, feature_map: FeatureMap, settings: Settings, checkpoints: Path) -> None:
        super().__init__(
            feature_map,
            early_stop_patience=settings.patience,
            embedding_regularizer=settings.embedding_regularizer,
            reduce_lr_on_plateau=settings.reduce_lr_on_plateau,
            verbose=0,
            model_root=str(checkpoints),
            metrics=["AUC"],
        )
        Path(self.model_dir).mkdir(parents=True, exist_ok=True)
        self.embedding_layer = FeatureEmbedding(feature_map, settings.embedding_dim)
        self.fm = FactorizationMachine(feature_map)
        width = feature_map.num_fields * settings.embedding_dim
        self.mlp = MLP_Block(width, list(settings.hidden_units), "ReLU", output_dim=1, dropout_rates=settings.dropout)
        self.compile("adam", "binary_crossentropy", settings.learning_rate)
        torch_start = {m: copy.deepcopy(m.state_dict()) for m in self.modules() if isinstance(m, torch.nn.Linear)}
        self.reset_parameters()
        if settings.torch_init:
            for layer, start in torch_start.items():
                layer.load_state_dict(start)
        self.batch_size = settings.batch_size
        self.validation_auc, self.validation_seconds, self.step_seconds, self.epoch_seconds = [], [], [], []

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        fields = self.get_inputs(inputs)
        embeddings = self.embedding_layer(fields)  # [B, fields, d]
        logits = self.fm(fields, embeddings) + self.mlp(embeddings.flatten(start_dim=1))  # [B, 1]
        return {"y_pred": self.output_activation(logits)}

    def train_step(self, batch_data: dict[str, torch.Tensor]) -> torch.Tensor:
        start = time.perf_counter()
        loss = super().train_step(batch_data)
        if len(self.get_labels(batch_data)) == self.batch_size:
            self.step_seconds.append(time.perf_counter() - start)
        return loss

    def train_epoch(self, data_generator: torch.utils.data.DataLoader) -> None:
        start = time.perf_counter()
        super().train_epoch(data_generator)
        self.epoch_seconds.append(time.perf_counter() - start - self.validation_seconds[-1])

    def eval_step(self) -> None:
        start = time.perf_counter()
        super().eval_step()
        self.validation_seconds.append(time.perf_counter() - start)

    def checkpoint_and_earlystop(self, logs: dict[str, float], min_delta: float = 1e-6) -> None:
        self.validation_auc.append(float(logs["AUC"]))
        super().checkpoint_and_earlystop(logs, min_delta)


def fit(data: Prepared, settings: Settings, seed: int, workers: int) -> tuple[DeepFM, dict]:
    """Train to early stopping. Returns the model with its best weights, and the loaders of the three splits."""
    seed_everything(seed)
    files = (str(data.folder / f"{split}.npz") for split in SPLITS)
    sampling = {"batch_size": settings.batch_size, "shuffle": True, "num_workers": workers}  # only train is shuffled
    loaders = RankDataLoader(data.feature_map, "both", *files, **sampling)
    model = DeepFM(data.feature_map, settings, data.folder)
    model.fit(loaders[0], epochs=settings.max_epochs, validation_data=loaders[1])
    return model, dict(zip(SPLITS, loaders, strict=True))


def ranking_metrics(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """GAUC over users with both labels, NDCG@{1,5,10} and HR@5 over users with a positive. All arrays ``[rows]``."""
    order = np.lexsort((-scores, users))  # stable
    starts = np.flatnonzero(np.diff(users[order])) + 1
    discounts = 1 / np.log2(np.arange(10) + 2)
    per_user, auc = [], np.zeros(2)
    for rows in np.split(order, starts):
        relevance = labels[rows]
        auc += gAUC(relevance, scores[rows])
        if relevance.any():
            positives = int(relevance.sum())
            dcg = np.cumsum(np.pad(relevance[:10], (0, max(0, 10 - len(rows)))) * discounts)
            ideal = np.cumsum((np.arange(10) < positives) * discounts)
            per_user.append([*(dcg / ideal)[[0, 4, 9]], float(relevance[:5].any())])
    means = dict(zip(("NDCG@1", "NDCG@5", "NDCG@10", "HR@5"), np.mean(per_user, axis=0).tolist(), strict=True))
    return {"GAUC": auc[0] / auc[1], **means, "users": len(per_user)}


def measure_quality(data: Prepared, settings: Settings, seed: int, workers: int) -> dict:
    model, loaders = fit(data, settings, seed, workers)
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


def measure_speed(data: Prepared, settings: Settings, steps: int, workers: int) -> dict:
    """Medians over at least ``steps`` full-batch steps, in whole epochs, after one epoch of warm-up."""
    full_steps = data.rows["train"] // settings.batch_size
    if full_steps == 0:
        raise SystemExit(f"--data: {data.rows['train']} training rows, fewer than a batch of {settings.batch_size}.")
    epochs = 1 + math.ceil(steps / full_steps)
    cpu, start = time.process_time(), time.perf_counter()
    model, _ = fit(data, replace(settings, max_epochs=epochs, patience=epochs + 1), seed=0, workers=workers)
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
    """The results in ``path``, or empty ones. Refuses a file written with other settings or data."""
    if not path.exists():
        return {**header, "seeds": {}, "speed": {}}
    results = json.loads(path.read_text())
    if differing := [key for key in header if results.get(key) != header[key]]:
        raise SystemExit(f"{path}: written with other {', '.join(differing)}. Choose another file for --json.")
    return results


def save_results(path: Path, results: dict) -> None:
    """Write all or nothing: an interrupted run keeps the seeds it had."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n")
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
    parser = argparse.ArgumentParser(description="FuxiCTR's DeepFM on a prepared data set")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with schema.json")
    add("--json", type=Path, required=True, help="results; resumed when it exists")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--speed-only", action="store_true", help="measure throughput, no quality")
    add("--steps", type=int, default=160, help="steps to time with --speed-only")
    add("--workers", type=int, default=0, help="loader processes; FuxiCTR's default is 1")
    add("--patience", type=int, default=Settings.patience)
    add("--l2", type=float, default=Settings.embedding_regularizer, help="FuxiCTR's embedding_regularizer")
    add("--torch-init", action="store_true", help="linear layers start as torch's do, not by FuxiCTR's Xavier normal")
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
    )
    with tempfile.TemporaryDirectory() as folder:
        data = convert(args.data, Path(folder))
        versions = {package: version(package) for package in ("fuxictr", "torch", "numpy")}
        header = {"settings": asdict(settings), "rows": data.rows, "sha256": data.sha256, "versions": versions}
        results = open_results(args.json, json.loads(json.dumps(header)))
        runs = [] if args.speed_only else [seed for seed in args.seeds if str(seed) not in results["seeds"]]
        for seed in runs:
            results["seeds"][str(seed)] = measure_quality(data, settings, seed, args.workers)
            save_results(args.json, results)
        if args.speed_only:
            results["speed"][str(args.workers)] = measure_speed(data, settings, args.steps, args.workers)
            save_results(args.json, results)
    print_tables(results)


if __name__ == "__main__":
    main()
