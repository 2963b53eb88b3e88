"""Recovery of categories planted in the data by codes, and the settings that matter for it.

    python benchmarks/planted.py --seeds 0 1 2 3 4 --json FILE

Users and items of synthetic data sit in trees of categories of three levels, and labels follow the affinity of the two
(`data_pipeline/datasets/synthetic.py`); each seed has its own tree, rows and initialization. Codebooks have the sizes
of the tree's levels. The score is the adjusted mutual information of codes and categories, level by level: 0 for codes
unrelated to the categories, 1 for the same partition. Ids that training never saw are left out. Contestants:

- COVE trained end to end, at a default and with one setting changed at a time;
- k-means of the embeddings that DeepFM, or COVE-DeepFM, has learned, and of its centres for the levels above; DeepFM
  with weight decay of its tables too, which regularizes as codes do;
- random codes;
- the same k-means of the hidden vectors that made the labels: the score that the distances of the tree give.

All scores are of the checkpoint with the best validation AUC. A finished cell, a setting and a seed, is added to FILE
as one line of JSON; cells that FILE has are not trained again. Runs and data stay in `--folder`.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed.checkpoint as dcp
from omegaconf import OmegaConf
from planted_tables import show
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.config import RunConfig
from cove_dist.console import quiet_libraries
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.quantization import perplexity
from cove_dist.report.categories import load_categories
from cove_dist.report.codes import EntityCodes, load_codes
from cove_dist.report.run_folder import Run, load_run
from cove_dist.tasks.configuration import compose_run_config, load_saved_run
from cove_dist.training.program import train
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.errors import UserError
from data_pipeline.id_tables import read_original_ids
from data_pipeline.json_files import to_json
from data_pipeline.preparation.prepare import prepare
from data_pipeline.schema import Schema

logger = logging.getLogger("cove_dist.planted")

BASE, DEFAULT = "DeepFM", "COVE"
ENTITIES = ("user", "item")
TRAINING = (
    "data=synthetic",
    "model.hidden_units=[64,32]",
    "embeddings.dim=16",
    "embeddings.optimizer.learning_rate=0.005",
    "trainer.optimizer.learning_rate=0.005",
    "trainer.device=cpu",
    "trainer.batch_size=1024",
    "trainer.epochs=60",
    "trainer.early_stopping.patience=2",
    "trainer.log_every=20",
)
DECAYS = {f"weight_decay={rate}": (f"embeddings.optimizer.weight_decay={rate}",) for rate in ("1e-5", "1e-4", "1e-3")}
BASES: dict[str, tuple[str, ...]] = {BASE: ()} | {f"{BASE}, {name}": change for name, change in DECAYS.items()}
SETTINGS: dict[str, tuple[str, ...]] = {  # changes of COVE's default, one at a time
    "start=kmeans": ("quantizer.start=kmeans", "quantizer.kmeans_step=500"),
    "learning=ema": ("quantizer.learning=ema",),
    "learning=ema, start=kmeans": ("quantizer.learning=ema", "quantizer.start=kmeans", "quantizer.kmeans_step=500"),
    "revive_every=100": ("quantizer.revive_every=100",),
    "codebook_gradient=quantization": ("quantizer.codebook_gradient=quantization",),
    "loss_reduction=sum": ("quantizer.loss_reduction=sum",),
    "omega_q=0.1": ("quantizer.omega_q=0.1",),
    "omega_q=0.01": ("quantizer.omega_q=0.01",),
    "beta=1": ("quantizer.beta=1",),
    "alpha=0.25": ("quantizer.alpha=0.25",),
    "loss_reduction=sum, omega_q=0.1": ("quantizer.loss_reduction=sum", "quantizer.omega_q=0.1"),
    "batch_size=512": ("trainer.batch_size=512",),
    "batch_size=4096": ("trainer.batch_size=4096",),
    "init_std=0.1": ("embeddings.init_std=0.1",),
    **DECAYS,
}
ALL = (*BASES, DEFAULT, *SETTINGS)

Record = dict[str, Any]


@dataclass(frozen=True)
class Planted:
    """The data: as many users as items, both in trees of one shape."""

    users: int = 2000
    rows: int = 160_000
    tree: tuple[int, ...] = (64, 16, 4)
    noise: float = 0.1
    skew: float = 0.3

    @property
    def dataset(self) -> Synthetic:
        return Synthetic(
            users=self.users,
            items=self.users,
            rows=self.rows,
            user_tree=self.tree,
            item_tree=self.tree,
            noise=self.noise,
            user_skew=self.skew,
            item_skew=self.skew,
        )

    def prepared(self, folder: Path, seed: int) -> Path:
        sizes = "-".join(map(str, (self.users, self.rows, *self.tree, self.noise, self.skew)))
        path = folder / f"data_{sizes}_{seed}"
        if not path.exists():
            prepare(self.dataset, path, name="synthetic", seed=seed, on_progress=logger.debug)
        return path


def cell(planted: Planted, setting: str, seed: int, overrides: Sequence[str]) -> Record:
    """Return the identity of a record's cell, in which two records of the same cell agree."""
    levels = [f"quantizer.{entity}_levels={list(planted.tree)}" for entity in ENTITIES]
    changes = BASES[setting] if setting in BASES else ("quantizer=cove", *levels, *SETTINGS.get(setting, ()))
    run = [*TRAINING, *changes, *overrides, f"seed={seed}"]
    data = asdict(planted) | {"tree": list(planted.tree)}
    quantizer = OmegaConf.to_container(compose_run_config(run).quantizer)  # its defaults may change
    return {"setting": setting, "seed": seed, "data": data, "run": run, "quantizer": quantizer}


def measure(planted: Planted, wanted: Record, folder: Path) -> Record:
    """Train, evaluate and score one cell."""
    seed, start = wanted["seed"], time.perf_counter()
    data = planted.prepared(folder, seed)
    output = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '_', wanted['setting'])}_{seed}"
    shutil.rmtree(output, ignore_errors=True)  # what a killed run left
    train([*wanted["run"], f"data.path={data}", f"output={output}"])
    metrics = evaluate_run([f"run={output}", "device=cpu"]).metrics
    config, _ = load_saved_run(str(output))
    run = load_run(output)
    found = {"codes": {codes.entity: codes for codes in load_codes(run)}}
    found |= rivals(planted, config, run, seed, base=wanted["setting"] == BASE)
    scores = {who: {entity: score(run, codes) for entity, codes in by.items()} for who, by in found.items() if by}
    return wanted | {"auc": metrics["auc"], "scores": scores, "seconds": time.perf_counter() - start}


def rivals(planted: Planted, config: RunConfig, run: Run, seed: int, base: bool) -> dict[str, dict[str, EntityCodes]]:
    """Partitions that need no quantizer, by name and entity; those that need no training either, with the base."""
    schema = Schema.load(config.data.path)
    embeddings = load_embeddings(config, schema, find_checkpoint(run.folder, config, "best"))
    found: dict[str, dict[str, EntityCodes]] = {"kmeans": {}} | ({"random": {}, "hidden": {}} if base else {})
    random = np.random.default_rng(seed)
    for entity, population in zip(ENTITIES, planted.dataset.populations(seed), strict=True):
        ids = seen_ids(config, schema, entity)
        found["kmeans"][entity] = EntityCodes(entity, planted.tree, ids, cluster(embeddings[entity], planted, seed))
        if base:
            drawn = np.stack([random.integers(size, size=len(ids)) for size in planted.tree], axis=1)
            hidden = cluster(population.hidden(ids.to_numpy()), planted, seed)
            found["random"][entity] = EntityCodes(entity, planted.tree, ids, drawn)
            found["hidden"][entity] = EntityCodes(entity, planted.tree, ids, hidden)
    return found


def load_embeddings(config: RunConfig, schema: Schema, checkpoint: Path) -> dict[str, np.ndarray]:
    """Load from a checkpoint the table rows ``[n, d]`` of the ids seen in training, for any sharding."""
    columns = {entity: schema.entity(entity) for entity in ENTITIES}
    saved = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    keys = {
        entity: next(key for key in saved if key.startswith("model.") and key.endswith(f".{column.table_name}.weight"))
        for entity, column in columns.items()
    }
    state = {keys[e]: torch.empty(column.num_rows, config.embeddings.dim) for e, column in columns.items()}
    dcp.load(state, checkpoint_id=checkpoint, no_dist=True)
    return {entity: state[keys[entity]][: column.num_seen].numpy() for entity, column in columns.items()}


def seen_ids(config: RunConfig, schema: Schema, entity: str) -> pa.Array:
    """Original ids ``[n]``, in order of the embedding rows."""
    column = schema.entity(entity)
    return read_original_ids(config.data.path, column.table_name).slice(0, column.num_seen)


def cluster(vectors: np.ndarray, planted: Planted, seed: int) -> np.ndarray:
    """Return codes ``[n, H]`` by k-means of the vectors, then of the centres, each with the weight of its vectors."""
    weights, levels = np.ones(len(vectors)), []
    for size in planted.tree:
        found = KMeans(size, n_init=10, random_state=seed).fit(vectors, sample_weight=weights)
        levels.append(found.labels_ if not levels else found.labels_[levels[-1]])
        vectors, weights = found.cluster_centers_, np.bincount(levels[-1], minlength=size).astype(float)
    return np.stack(levels, axis=1).astype(np.int64)


def score(run: Run, codes: EntityCodes) -> dict[str, list[float]]:
    """Return adjusted mutual information and perplexity of each level, fine first; every id counts once."""
    categories = {labelled.column: labelled for labelled in load_categories(run, codes)}
    figures: dict[str, list[float]] = {"ami": [], "perplexity": []}
    for level, _ in enumerate(codes.levels, start=1):
        labelled = categories[f"category_{level}"]
        shared = adjusted_mutual_info_score(labelled.categories, labelled.codes[:, level - 1])
        figures["ami"].append(float(shared))
        figures["perplexity"].append(float(perplexity(torch.from_numpy(codes.sizes(level)))))
    return figures


def measured(
    planted: Planted, settings: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], folder: Path, file: Path
) -> Iterator[Record]:
    """Return the records of all cells, in order of the seed: read from ``file``, or measured and added to it."""
    lines = file.read_text().splitlines() if file.is_file() else []
    known = [json.loads(line) for line in lines]
    for seed in seeds:
        for setting in settings:
            wanted = cell(planted, setting, seed, overrides)
            record = next((r for r in known if all(r[key] == value for key, value in wanted.items())), None)
            if record is None:
                record = measure(planted, wanted, folder)
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("a") as opened:
                    opened.write(to_json(record) + "\n")
                print(summary(record), flush=True)
            yield record


def summary(record: Record) -> str:
    who = "kmeans" if record["setting"] in BASES else "codes"
    levels = zip(*(record["scores"][who][entity]["ami"] for entity in ENTITIES), strict=True)
    shared = ", ".join(f"{statistics.mean(level):.3f}" for level in levels)
    return (
        f"{record['setting']}, seed {record['seed']}: mutual information of {who} {shared},"
        f" AUC {record['auc']:.4f}, {record['seconds']:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL, metavar="SETTING", help=f"of: {'; '.join(ALL)}")
    parser.add_argument("--json", type=Path, default=Path("runs/planted/results.jsonl"), metavar="FILE")
    parser.add_argument("--folder", type=Path, default=Path("runs/planted"), help="of data and runs")
    parser.add_argument("--users", type=int, default=Planted.users, help="and as many items")
    parser.add_argument("--rows", type=int, default=Planted.rows)
    parser.add_argument(
        "--tree", type=int, nargs="+", default=Planted.tree, help="categories per level, fine to coarse"
    )
    parser.add_argument("--noise", type=float, default=Planted.noise)
    parser.add_argument("overrides", nargs="*", help="of every run, key=value; after --")
    arguments = parser.parse_args()
    quiet_libraries()
    logging.getLogger("cove_dist").setLevel(logging.WARNING)
    planted = Planted(arguments.users, arguments.rows, tuple(arguments.tree), arguments.noise)
    cells = measured(planted, arguments.only, arguments.seeds, arguments.overrides, arguments.folder, arguments.json)
    try:
        records = list(cells)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    show(records, base=BASE, default=DEFAULT)


if __name__ == "__main__":
    main()
