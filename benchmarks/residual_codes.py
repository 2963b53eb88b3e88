"""Residual codes of trained embeddings at equal code budgets: this project's quantizer, k-means, FAISS, an RQ-VAE.

    cove prepare data=toys source=data/raw/toys
    cove train experiment=toys_bprmf trainer.epochs=30 output=runs/toys_bprmf
    python benchmarks/residual_codes.py --run runs/toys_bprmf --ranks 1 2 4 --json results/residual_codes.json

All contestants (`residual_contestants.py`) get the same frozen vectors, numbers of codes a level, and seed. Measured,
means and standard deviations over seeds:

- error: ``sum |x - decoded|^2 / sum |x - mean|^2`` in float64; 1 is that of the mean vector;
- unique: share of the vectors whose tuple of codes no other vector has; largest: most vectors with one tuple;
- used: perplexity of the codes of a level as a share of their number, level by level;
- recall: share of the 10 nearest neighbors of a vector (Euclidean, without itself) whose decoded vectors are among
  the 10 nearest to it; where decoded vectors are equally near, as those of equal codes are, the expected share. Over
  vectors drawn at random;
- seconds of CPU time, of training and encoding.

``--ranks 1 2 4`` trains this project's quantizer on so many gloo ranks, each with its part of every batch, and compares
the codes with those of one process.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import write_measurements
from residual_contestants import CONTESTANTS, Coded, Request, ours
from rich.console import Console
from rich.table import Table
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import cove_dist as cove
from cove_dist.console import quiet_libraries
from cove_dist.distributed import process_group, world
from cove_dist.quantization import Replicas, perplexity

K = 10
Record = dict[str, Any]


def embeddings(run: Path, entity: str) -> torch.Tensor:
    """Return the vectors of an entity of a run, float32 ``[n, d]``."""
    column = cove.load(run).embeddings(entity)["embedding"]
    return torch.from_numpy(np.stack(column.to_numpy(zero_copy_only=False)).astype(np.float32))


def score(vectors: np.ndarray, coded: Coded, queries: np.ndarray, levels: Sequence[int]) -> Record:
    """Return the measurements of one contestant but its seconds.

    Args:
        vectors: The vectors ``[n, d]``.
        coded: Their codes and the decoded vectors.
        queries: Positions of the vectors whose neighbors are compared.
        levels: Number of codes of every level.
    """
    exact, decoded = vectors.astype(np.float64), coded.decoded.astype(np.float64)
    _, first, of_tuple, sizes = np.unique(
        coded.codes, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    counts = [
        torch.bincount(torch.from_numpy(codes), minlength=v) for codes, v in zip(coded.codes.T, levels, strict=True)
    ]
    return {
        "error": float(np.square(exact - decoded).sum() / np.square(exact - exact.mean(axis=0)).sum()),
        "unique": float((sizes == 1).sum() / len(exact)),
        "largest": int(sizes.max()),
        "used": [float(perplexity(each)) / v for each, v in zip(counts, levels, strict=True)],
        "recall": recall(exact, decoded[first], of_tuple.ravel(), queries),
    }


def recall(vectors: np.ndarray, tuples: np.ndarray, of_tuple: np.ndarray, queries: np.ndarray) -> float:
    """Return the expected share of the K nearest neighbors that are found, with ties in random order.

    Args:
        vectors: The vectors, float64 ``[n, d]``.
        tuples: The decoded vector of each distinct tuple of codes, float64 ``[m, d]``.
        of_tuple: The tuple of every vector, int ``[n]``.
        queries: Positions of the vectors whose neighbors are sought, int ``[q]``.
    """
    shares = []
    for part in np.array_split(queries, -(-len(queries) // 100)):
        own = (np.arange(len(part)), part)
        truth, found = distances(vectors[part], vectors), distances(vectors[part], tuples)[:, of_tuple]
        truth[own] = found[own] = np.inf
        near = np.argpartition(truth, K - 1, axis=1)[:, :K]
        last = np.partition(found, K - 1, axis=1)[:, K - 1, np.newaxis]
        certain, tied = found < last, found == last
        chance = (K - certain.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
        shares.append(np.take_along_axis(np.where(tied, chance, certain), near, axis=1).mean(axis=1))
    return float(np.concatenate(shares).mean())


def distances(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return squared distances ``[q, n]``."""
    return np.square(queries).sum(axis=1)[:, np.newaxis] - 2 * queries @ vectors.T + np.square(vectors).sum(axis=1)


def compare(request: Request, queries: int) -> dict[str, Record]:
    """Return the measurements of every contestant."""
    drawn = np.random.default_rng(0).permutation(len(request.vectors))[:queries]
    found = {}
    for name, contestant in CONTESTANTS.items():
        start = time.process_time()
        coded = contestant(request)
        seconds = time.process_time() - start
        measured = score(request.vectors.numpy(), coded, drawn, request.levels)
        found[name] = {"seed": request.seed, **measured, "seconds": seconds}
    return found


def on_rank(request: Request, learning: str, start: str) -> Coded:
    """Train this project's quantizer in float64 on one of several ranks."""
    quiet_libraries()
    torch.set_num_threads(1)
    with process_group("cpu") as context:
        replicas = Replicas(context.rank, context.world_size, world().sum)
        return ours(request, learning, start, replicas, torch.float64)


def compare_ranks(request: Request, ranks: Sequence[int], queries: int) -> list[Record]:
    """Return measurements by start of the codebooks and number of ranks, with the share of vectors coded as on one."""
    drawn = np.random.default_rng(0).permutation(len(request.vectors))[:queries]
    found = []
    for start in ("random", "kmeans"):
        single = ours(request, "ema", start, precision=torch.float64).codes
        for count in ranks:
            first, *others = run_on_ranks(count, request, "ema", start)
            record = {
                "start": start,
                "ranks": count,
                "ranks_agree": all(np.array_equal(first.codes, other.codes) for other in others),
                "as_on_one": float((first.codes == single).all(axis=1).mean()),
            }
            found.append(record | score(request.vectors.numpy(), first, drawn, request.levels))
    return found


def run_on_ranks(count: int, request: Request, learning: str, start: str) -> list[Coded]:
    """Call `on_rank` in so many new processes, as torchrun starts them; return their results by rank."""
    launch = LaunchConfig(
        run_id="residual_codes",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    results = elastic_launch(launch, on_rank)(request, learning, start)
    return [results[rank] for rank in range(count)]


def shown(entity: str, levels: Sequence[int], records: Mapping[str, list[Record]]) -> Table:
    """Tabulate means and standard deviations over seeds."""
    columns = ("error", "unique", "largest", "used", "recall@10", "seconds")
    table = Table("", *columns, title=f"{entity}s, {' x '.join(map(str, levels))}")
    for name, runs in records.items():
        used = np.mean([run["used"] for run in runs], axis=0)
        cells = [
            spread(runs, "error", 4),
            spread(runs, "unique", 4),
            f"{np.mean([run['largest'] for run in runs]):.0f}",
        ]
        cells += [", ".join(f"{level:.2f}" for level in used), spread(runs, "recall", 4)]
        table.add_row(name, *cells, f"{np.mean([run['seconds'] for run in runs]):.1f}")
    return table


def spread(runs: Sequence[Record], key: str, digits: int) -> str:
    """Return the mean and the standard deviation over runs."""
    values = [run[key] for run in runs]
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a finished run of collaborative filtering")
    parser.add_argument("--entities", nargs="+", choices=("item", "user"), default=["item"])
    parser.add_argument("--levels", nargs="+", default=["256,256,256", "64,64"], help="powers of two, one set each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=20, help="passes over the vectors, of contestants that learn by batches"
    )
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument(
        "--ranks", type=int, nargs="*", default=[], help="numbers of gloo ranks, for the last set of levels"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    given = parse()
    console = Console(width=120)
    results: dict[str, Any] = {"epochs": given.epochs, "queries": given.queries}
    budgets = [tuple(map(int, each.split(","))) for each in given.levels]
    vectors = {entity: embeddings(given.run, entity) for entity in given.entities}

    def save() -> None:
        if given.json is not None:
            write_measurements(given.json, results)

    for seed in range(given.seeds):
        for entity, levels in itertools.product(vectors, budgets):
            records = results.setdefault(f"{entity}, {' x '.join(map(str, levels))}", {})
            for name, record in compare(Request(vectors[entity], levels, seed, given.epochs), given.queries).items():
                records.setdefault(name, []).append(record)
            save()
    for entity, levels in itertools.product(vectors, budgets):
        console.print(shown(entity, levels, results[f"{entity}, {' x '.join(map(str, levels))}"]))
    if given.ranks:
        request = Request(vectors[given.entities[0]], budgets[-1], 0, given.epochs)
        results["ranks"] = compare_ranks(request, given.ranks, given.queries)
        console.print(*results["ranks"], sep="\n")
        save()


if __name__ == "__main__":
    main()
