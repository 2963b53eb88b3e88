"""BPRMF, NeuMF and LightGCN against RecBole 1.2.1, in turns, on the same split with the same settings.

    python3 -m venv recbole && recbole/bin/pip install torch==2.13.0 && \\
        recbole/bin/pip install --no-deps -r benchmarks/requirements-recbole.txt
    cove prepare data=toys source=raw/toys
    python benchmarks/recbole_cf.py --data data/toys --recbole recbole/bin/python --json FILE \\
        --ours embeddings.optimizer.name=sparse_rmsprop

The prepared folder is written as RecBole's benchmark files: its train, validation and test rows are ours. Both learn
from d = 64, batches of 1024 positives with a uniform negative each, by Adam at the same rate, with the same L2; NeuMF's
hidden layers are 64, 32, 16; LightGCN has three layers. All else differs, such as the initial weights.

Both rank all items but those of the user's earlier splits. RecBole ranks items that training never saw as well, which
ours does not; there are few, and their number is shown. That NDCG, recall and HR mean the same is checked in every run:
RecBole's own lists of the test split, scored by our metrics, must give RecBole's metrics to six digits, and hold no
item of the user's history.

Quick times where an epoch of RecBole takes minutes: ``--max-steps 60 --epochs 2``. With ``--users 2000`` RecBole
evaluates only so many users, and its seconds are scaled up to all; not for LightGCN, which propagates once for all.
Without an evaluation of either: ``--skip-evaluation``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import recbole_turns as turns
import torch

from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.top_k import TopK
from data_pipeline.history import History
from data_pipeline.schema import SPLITS, Schema

DIM, BATCH, LAYERS = 64, 1024, 3
HIDDEN, LIGHTGCN_L2 = [64, 32, 16], 1e-4
PARTS = {"train": "train", "validation": "valid", "test": "test"}  # ours: RecBole's
MODELS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "bprmf": ({"model": "BPR", "embedding_size": DIM}, ()),
    "neumf": (
        # a batch of RecBole's counts the negatives too, which for a loss of pairs it does not
        {"model": "NeuMF", "mf_embedding_size": DIM, "mlp_embedding_size": DIM, "mlp_hidden_size": HIDDEN}
        | {"dropout_prob": 0.0, "train_batch_size": 2 * BATCH},
        (f"model.hidden_units={HIDDEN}", "model.dropout=0"),
    ),
    "lightgcn": (
        # with require_pow its penalty is half the squared norm over the batch, as ours
        {
            "model": "LightGCN",
            "embedding_size": DIM,
            "n_layers": LAYERS,
            "reg_weight": LIGHTGCN_L2,
            "require_pow": True,
        },
        (f"model.layers={LAYERS}", f"model.regularization={LIGHTGCN_L2}"),
    ),
}


def write_recbole(data: Path, folder: Path, users: int | None = None) -> Path:
    """Write the prepared folder as RecBole's files ``cf/cf.<part>.inter``; the first users for validation and test."""
    schema, target = Schema.load(data), folder / "cf"
    target.mkdir()
    user, item = (schema.entity(role).name for role in ("user", "item"))
    for split, part in PARTS.items():
        files = (data / file for file in schema.splits[split].files)
        rows = pa.concat_tables(pq.read_table(file, columns=[user, item]) for file in files)
        ids = np.column_stack([rows[user].to_numpy(), rows[item].to_numpy()])
        if users is not None and split != "train":
            ids = ids[np.isin(ids[:, 0], np.unique(ids[:, 0])[:users])]
        header = "user_id:token\titem_id:token"
        np.savetxt(target / f"cf.{part}.inter", ids, fmt="%d", delimiter="\t", header=header, comments="")
    return folder


def recbole_config(model: str, folder: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return RecBole's configuration; it counts an evaluation batch in scores."""
    return {
        "dataset": "cf",
        "data_path": str(folder),
        "benchmark_filename": list(PARTS.values()),
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": "full"},
        "train_batch_size": BATCH,
        "eval_batch_size": arguments.evaluation_scores or (1 << 17 if model == "neumf" else 1 << 22),
        "learning_rate": arguments.learning_rate,
        "weight_decay": arguments.weight_decay,
        "seed": seed,
        **MODELS[model][0],
    }


def our_overrides(model: str, seed: int, arguments: argparse.Namespace) -> list[str]:
    settings = {"learning_rate": arguments.learning_rate, "weight_decay": arguments.weight_decay}
    both = [f"{part}.optimizer.{key}={x}" for part in ("trainer", "embeddings") for key, x in settings.items()]
    evaluated = [f"evaluation.{key}" for key in ("ndcg_at=[10]", "hit_rate_at=[10]")]
    evaluated += [f"evaluation.rank_{split}=[full]" for split in ("validation", "test")]
    own = ["data=toys", f"data.path={arguments.data}", f"model={model}", "trainer=cf", f"seed={seed}"]
    own += [f"trainer.batch_size={BATCH}", f"embeddings.dim={DIM}", "negatives.count=1", "trainer.device=cpu"]
    return [*own, *both, *evaluated, "trainer.early_stopping.metric=full_ndcg@10", *MODELS[model][1]]


def check_agreement(lists: turns.Lists, reported: dict[str, float], data: Path) -> dict[str, float]:
    """RecBole's lists by our metrics, which must give what it reports, and what the two rank differently.

    Raises:
        SystemExit: They do not, or a list holds an item that should be masked.
    """
    earlier, positives = (History.load(data, split) for split in SPLITS[:2]), History.load(data, "test")
    users, items = lists["users"], lists["items"]
    for history in earlier:
        if history.contains(users, items).any():
            raise SystemExit("RecBole's lists hold items of users' earlier splits: not the ranking that ours has.")
    metric = TopK((10,), (10,))
    counts = positives.offsets[users + 1] - positives.offsets[users]
    found = Positions.of_mask(torch.from_numpy(positives.contains(users, items)), metric.depth)
    metric.update(found, torch.from_numpy(counts))
    ours = {name: float(value) for name, value in metric.compute().items()}
    turns.check_same({name: ours[name] for name in reported}, reported)
    return {**ours, "unseen_items_listed": int((items >= Schema.load(data).entity("item").num_seen).sum())}


def main() -> None:
    parser = turns.common_options(__doc__, list(MODELS), epochs=20)
    parser.add_argument("--weight-decay", type=float, default=0.0, help="of both optimizers (default: %(default)s)")
    parser.add_argument("--users", type=int, help="with --max-steps: RecBole evaluates only so many users, scaled up")
    parser.add_argument("--evaluation-scores", type=int, help="of a batch of RecBole's evaluation")
    arguments = parser.parse_args()
    if arguments.users is not None and arguments.max_steps is None:
        parser.error("--users: with --max-steps alone, where quality is not measured")
    if arguments.users is not None and "lightgcn" in arguments.models:
        parser.error("--users: not with lightgcn, whose propagation would be scaled up as well")
    schema = Schema.load(arguments.data)
    everyone = int(np.count_nonzero(np.diff(History.load(arguments.data, "validation").offsets)))
    theirs, ours = turns.plans(arguments)

    def play_round(model: str, seed: int) -> dict[str, turns.Record]:
        with tempfile.TemporaryDirectory() as name:
            folder = write_recbole(arguments.data, Path(name), arguments.users)
            config = recbole_config(model, folder, seed, arguments)
            record, lists = turns.run_recbole(arguments.recbole, config, theirs, arguments.threads)
        if record["test"] is not None:
            record["agreement"] = check_agreement(lists, record["test"], arguments.data)
        if arguments.users is not None:
            for epoch in turns.evaluations(record):
                epoch["evaluation_s"] *= everyone / min(arguments.users, everyone)
        overrides = our_overrides(model, seed, arguments)
        runs = {turns.RECBOLE: record, "ours": turns.run_ours(overrides, ours, arguments.threads)}
        if arguments.ours:
            further = turns.run_ours([*overrides, *arguments.ours], ours, arguments.threads)
            runs[turns.describe(arguments.ours)] = further
        turns.check_steps(runs)
        return runs

    unseen = schema.entity("item").num_ids - schema.entity("item").num_seen
    print(f"{schema.name}: {schema.splits['train'].rows:,} training rows; {unseen:,} items are in no training row")
    turns.play(arguments, play_round)


if __name__ == "__main__":
    main()
