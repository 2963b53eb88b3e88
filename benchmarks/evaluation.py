"""Time of ranking on one rank, over all items and among stored candidates, next to the bare operations of torch.

    cove prepare data=toys
    python benchmarks/evaluation.py --json FILE

The product's metrics of the test split by an untrained BPRMF: vectors of users and items, lists without the items of
earlier splits, expected positions under ties, metrics, coverage. Next to it, on the same vectors in memory:

- all items: the products of each batch of users with all items, and `torch.topk` of the longest cutoff
- candidates: the vectors of each batch's users and candidates, their products, and the comparison with the positive's

The contestants take turns within a round; ratios are made round by round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measured import write_measurements
from rich.console import Console
from rich.table import Table

from cove_dist.console import quiet_libraries
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.base import inner_model
from cove_dist.tasks.cf.config import CFRunConfig
from cove_dist.tasks.cf.evaluator import build_cf_ranking
from cove_dist.tasks.cf.loaders import candidate_loader
from cove_dist.tasks.cf.model import CFTaskModel
from cove_dist.tasks.cf.vectors import vectors_of
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.build import build
from data_pipeline.schema import CANDIDATES, Schema

RANKINGS = {"all items": "full", "candidates": "sampled"}
DEPTH = 10


def measure(folder: Path, ranking: str, rounds: int, context: DistributedContext) -> dict[str, Any]:
    """Return the medians of one ranking."""
    overrides = ["data=toys", f"data.path={folder}", "trainer=cf", "model=bprmf", "trainer.device=cpu"]
    config, _ = load_run_config([*overrides, f"evaluation.rank_test=[{RANKINGS[ranking]}]"])
    assert isinstance(config, CFRunConfig)
    schema = Schema.load(folder)
    model = inner_model(build(config, schema, context, config.trainer.batch_size).model.eval(), CFTaskModel)
    rank = build_cf_ranking(config, schema, "test", context, {})

    @torch.no_grad()
    def product() -> None:
        rank(model.objective.head, vectors_of(model, schema, context.device))

    bare = _Bare(config, schema, model, context)
    contestants: list[Callable[[], None]] = [product, bare.all_items if ranking == "all items" else bare.candidates]
    for contestant in contestants:
        contestant()
    taken = []
    for number in range(rounds):
        order = contestants if number % 2 == 0 else contestants[::-1]
        taken.append({contestant: _seconds(contestant) for contestant in order})
    ours, theirs = ([times[contestant] for times in taken] for contestant in contestants)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "users": schema.splits["test"].rows,
        "seconds": statistics.median(ours),
        "bare_seconds": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


class _Bare:
    """The operations that no ranking can do without, on vectors in memory."""

    @torch.no_grad()
    def __init__(self, config: CFRunConfig, schema: Schema, model: CFTaskModel, context: DistributedContext) -> None:
        vectors = vectors_of(model, schema, context.device)
        batches = [
            (batch.ids["user_id"].values(), batch.ids[CANDIDATES].values())
            for batch in candidate_loader(config, schema, "test", context)
        ]
        self._batches = [(user, items.unflatten(0, (len(user), -1))) for user, items in batches]
        self._users = vectors.users(torch.arange(schema.entity("user").num_rows))
        self._items = vectors.items(torch.arange(schema.entity("item").num_rows))

    @torch.no_grad()
    def all_items(self) -> None:
        for user, _ in self._batches:
            torch.topk(F.embedding(user, self._users) @ self._items.T, DEPTH)

    @torch.no_grad()
    def candidates(self) -> None:
        for user, items in self._batches:
            scores = torch.bmm(F.embedding(items, self._items), F.embedding(user, self._users)[:, :, None]).squeeze(2)
            (scores[:, 1:] > scores[:, :1]).sum(dim=1)


def _seconds(contestant: Callable[[], None]) -> float:
    start = time.perf_counter()
    contestant()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/toys"), help="a prepared folder with stored candidates")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    quiet_libraries()
    results: list[dict[str, Any]] = []
    table = Table("ranking", "threads", "users", "seconds", "bare", "ratio", "lowest to highest")
    with process_group("cpu") as context:
        for ranking in RANKINGS:
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                found = measure(arguments.data, ranking, arguments.rounds, context)
                results.append({"ranking": ranking, "threads": threads, **found})
                times = (f"{found[key]:.3f}" for key in ("seconds", "bare_seconds"))
                spread = f"{found['lowest']:.2f} to {found['highest']:.2f}"
                table.add_row(ranking, str(threads), f"{found['users']:,}", *times, f"{found['ratio']:.2f}", spread)
    if arguments.json:
        write_measurements(arguments.json, {"results": results})
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
