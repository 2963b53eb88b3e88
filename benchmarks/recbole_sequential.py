"""SASRec, BERT4Rec, GRU4Rec and Caser against RecBole 1.2.1: the time of training to predict next items as well.

    python3 -m venv recbole && recbole/bin/pip install torch==2.13.0 && \\
        recbole/bin/pip install --no-deps -r benchmarks/requirements-recbole.txt
    cove prepare data=movielens_100k implicit=true core=5 split=leave_one_out sequences=50 \\
        output=data/movielens_next
    python benchmarks/recbole_sequential.py --data data/movielens_next --recbole recbole/bin/python --json FILE

The histories are the same: a user's last item is of test, the one before of validation. RecBole makes a sample of every
item of training: the up to `sequences` items before it, padded to that length. Ours makes pieces of ``sequences + 1``
items and trains all positions of a piece at once. A step is ``--samples`` of the former, ``--lists`` of the latter.

The same for both: d = 64, layers, heads, inner width (d for SASRec, 4d for BERT4Rec), dropout, no dropout of attention
weights, softmax over all items, Adam; BERT4Rec's tables start at BERT's 0.02, and it masks a fifth of a list, in half
of the cases only the last item; Caser sees five items through 16 horizontal filters of each height and 4 vertical
ones; BERT4Rec has a bias of every item. RecBole's Caser has vectors of users besides. All else differs.

All items are ranked, none masked, and the metrics are checked in every run: RecBole's own lists of the test split,
scored by our metrics, must give RecBole's metrics to six digits.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import recbole_turns as turns
import torch

from cove_dist.evaluation.sequential import ListCompletion
from data_pipeline.schema import INPUT, TARGET, Schema

DIM, WINDOW, HORIZONTAL, VERTICAL = 64, 5, 16, 4
MASKED, LAST_ALONE = 0.2, 0.5
BERT_INIT_STD = 0.02  # RecBole's too
MODELS = ("sasrec", "bert4rec", "gru4rec", "caser")


def read_lists(data: Path, split: str) -> list[tuple[int, list[int]]]:
    """User and items, the target at the end."""
    schema = Schema.load(data)
    files = (data / file for file in schema.splits[split].files)
    columns = pa.concat_tables(map(pq.read_table, files)).to_pydict()
    users, inputs, targets = (columns[name] for name in (schema.entity("user").name, INPUT, TARGET))
    return [(user, given + target) for user, given, target in zip(users, inputs, targets, strict=True)]


def whole_histories(data: Path) -> dict[int, list[int]]:
    """Join the histories of users with a test row: training pieces, each beginning where another ends, then two items.

    Raises:
        SystemExit: The folder holds other lists.
    """
    schema = Schema.load(data)
    halves = {column.name: column for column in schema.categorical}
    if schema.label is not None or TARGET not in halves or halves[TARGET].max_length != 1:
        raise SystemExit(
            f"{data}: no histories with one item left out. Prepare them by split=leave_one_out sequences=50"
        )
    ending = {(user, piece[-1]): piece for user, piece in read_lists(data, "train")}
    histories = {}
    for user, items in read_lists(data, "test"):
        history = items[-3:]  # the last of training, of validation, and of test
        while (user, history[0]) in ending:
            history = ending.pop((user, history[0]))[:-1] + history
        histories[user] = history
    return histories


def write_recbole(data: Path, folder: Path) -> None:
    """Write the histories as RecBole's file ``next/next.inter``, with an item's position in its history as its time."""
    (folder / "next").mkdir()
    with (folder / "next" / "next.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, items in whole_histories(data).items():
            file.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(items))


def recbole_config(model: str, folder: Path, longest: int, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    transformer = {
        "n_layers": arguments.layers,
        "n_heads": arguments.heads,
        "hidden_size": DIM,
        "hidden_dropout_prob": arguments.dropout,
        "attn_dropout_prob": 0.0,
    }
    own = {
        "sasrec": {"model": "SASRec", "inner_size": DIM, "hidden_act": "relu", **transformer},
        "bert4rec": {"model": "BERT4Rec", "inner_size": 4 * DIM, "mask_ratio": MASKED, "ft_ratio": LAST_ALONE}
        | transformer,
        "gru4rec": {"model": "GRU4Rec", "embedding_size": DIM, "hidden_size": DIM, "num_layers": arguments.layers}
        | {"dropout_prob": arguments.dropout},
        "caser": {"model": "Caser", "embedding_size": DIM, "nh": HORIZONTAL, "nv": VERTICAL}
        | {"dropout_prob": arguments.dropout, "MAX_ITEM_LIST_LENGTH": WINDOW},
    }[model]
    return {
        "dataset": "next",
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
        "MAX_ITEM_LIST_LENGTH": longest,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "train_batch_size": arguments.samples,
        "eval_batch_size": 512,
        "learning_rate": arguments.learning_rate,
        "seed": seed,
        **own,
    }


def our_overrides(model: str, seed: int, arguments: argparse.Namespace) -> list[str]:
    layers, dropout = f"model.num_layers={arguments.layers}", f"model.dropout={arguments.dropout}"
    transformer = [layers, dropout, f"model.num_heads={arguments.heads}"]
    masks = [f"sequential.mask_share={MASKED}", f"sequential.mask_last={LAST_ALONE}"]
    filters = [f"model.horizontal_filters={HORIZONTAL}", f"model.vertical_filters={VERTICAL}"]
    own = {
        "sasrec": transformer,
        "bert4rec": [*transformer, *masks, f"embeddings.init_std={BERT_INIT_STD}"],
        "gru4rec": [layers, dropout, f"model.hidden_dim={DIM}"],
        "caser": [dropout, f"model.window={WINDOW}", *filters],
    }[model]
    rate = arguments.our_learning_rate or arguments.learning_rate
    rates = [f"{part}.optimizer.learning_rate={rate}" for part in ("trainer", "embeddings")]
    data = ["data=movielens_100k", f"data.path={arguments.data}", f"model={model}", "trainer=sequential"]
    steps = [f"trainer.batch_size={arguments.lists}", f"trainer.warmup_steps={arguments.warmup}", "trainer.device=cpu"]
    evaluated = ["evaluation.ndcg_at=[10]", "evaluation.hit_rate_at=[10]", "trainer.early_stopping.metric=ndcg@10"]
    evaluated += ["evaluation.exclude_seen=false"]  # as RecBole ranks
    return [*data, f"embeddings.dim={DIM}", f"seed={seed}", *steps, *rates, *evaluated, *own]


def check_agreement(lists: turns.Lists, reported: dict[str, float], data: Path) -> dict[str, float]:
    """RecBole's lists by our metrics. Raises SystemExit where these are not what it reports."""
    wanted = {user: items[-1] for user, items in read_lists(data, "test")}
    targets = torch.tensor([[wanted[int(user)]] for user in lists["users"]])
    metric = ListCompletion((10,), (10,), Schema.load(data).entity("item").num_seen, longest=1)
    metric.update(torch.from_numpy(lists["items"]), targets)
    found = {name: float(value) for name, value in metric.compute().items()}
    ours = {"ndcg@10": found["ndcg@10"], "recall@10": found["hr@10"], "hr@10": found["hr@10"]}
    turns.check_same(ours, reported)
    return ours


def main() -> None:
    parser = turns.common_options(__doc__, MODELS, epochs=20)
    add = parser.add_argument
    add("--layers", type=int, default=2, help="of SASRec, BERT4Rec and GRU4Rec (default: %(default)s)")
    add("--heads", type=int, default=2, help="(default: %(default)s)")
    add("--dropout", type=float, default=0.2, help="(default: %(default)s)")
    add("--samples", type=int, default=256, help="of a step of RecBole (default: %(default)s)")
    add("--lists", type=int, default=32, help="of a step of ours (default: %(default)s)")
    add("--our-learning-rate", type=float, help="(default: RecBole's); its steps are of other numbers of items")
    add("--warmup", type=int, default=0, metavar="STEPS", help="of our learning rate (default: %(default)s)")
    arguments = parser.parse_args()
    logging.getLogger("cove_dist.evaluation").setLevel(logging.ERROR)  # the paper's metrics need more than one target
    histories = whole_histories(arguments.data)
    longest = next(c.max_length for c in Schema.load(arguments.data).categorical if c.name == INPUT)
    samples = sum(len(items) - 3 for items in histories.values())
    items = len(np.unique(np.concatenate(list(histories.values()))))
    print(f"{len(histories):,} users, {items:,} items, {samples:,} training samples of up to {longest} items")
    theirs, ours = turns.plans(arguments)

    def play_round(model: str, seed: int) -> dict[str, turns.Record]:
        with tempfile.TemporaryDirectory() as name:
            write_recbole(arguments.data, Path(name))
            config = recbole_config(model, Path(name), longest, seed, arguments)
            record, lists = turns.run_recbole(arguments.recbole, config, theirs, arguments.threads)
        if record["test"] is not None:
            record["agreement"] = check_agreement(lists, record["test"], arguments.data)
        overrides = our_overrides(model, seed, arguments)
        runs = {turns.RECBOLE: record, "ours": turns.run_ours(overrides, ours, arguments.threads)}
        if arguments.ours:
            further = turns.run_ours([*overrides, *arguments.ours], ours, arguments.threads)
            runs[turns.describe(arguments.ours)] = further
        return runs

    turns.play(arguments, play_round)


if __name__ == "__main__":
    main()
