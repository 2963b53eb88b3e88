"""Growth of a BPRMF training step's time and memory with the number of items, sparse against dense optimizers.

    python benchmarks/cf_growth.py --json FILE --plot FILE.png

As many users as items, d = 64, batch 1024, one negative per positive, ids drawn uniformly, loading left out. Each size
and optimizer runs in its own process, in turn: row-wise Adagrad fused into the backward pass (sharded table, one rank),
and on a replicated table RMSprop and Adam of the rows looked up, and Adam of all rows. A size is left out where table,
gradient and moments would not fit in `--memory`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measured import write_measurements
from rich.console import Console
from rich.table import Table
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.console import quiet_libraries
from cove_dist.distributed import process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.build import build
from cove_dist.training.memory import resident_mb
from data_pipeline.batch import Batch
from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.transforms import NEGATIVES

BATCH, DIM = 1024, 64
# Of the table: itself, moments, a gradient
COPIES = {"rowwise_adagrad": 1, "sparse_rmsprop": 2, "sparse_adam": 3, "adam": 4}


def batches(items: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    keys = ["user_id", "item_id", NEGATIVES]
    while True:
        values = torch.randint(items, (len(keys) * BATCH,), generator=generator)
        ids = KeyedJaggedTensor(keys, values, lengths=torch.ones_like(values))
        user, item = values[:BATCH], values[BATCH : 2 * BATCH]
        yield Batch(ids, torch.empty(BATCH, 0), torch.ones(BATCH), user, item, torch.tensor(1.0))


def measure(optimizer: str, items: int, steps: int, threads: int) -> dict[str, Any]:
    """Median milliseconds of a step, and MB resident after them."""
    torch.set_num_threads(threads)
    quiet_libraries()
    overrides = ["model=bprmf", "trainer=cf", f"embeddings.dim={DIM}", f"embeddings.optimizer.name={optimizer}"]
    config, _ = load_run_config([*overrides, f"trainer.batch_size={BATCH}", "trainer.device=cpu"])
    columns = tuple(Categorical(f"{role}_id", items, items, role) for role in ("user", "item"))
    schema = Schema("growth", "label", columns, (), {}, implicit=True)
    with process_group("cpu") as context:
        train_state = build(config, schema, context, BATCH)
        model, seconds = train_state.model.train(), []
        for batch, _ in zip(batches(items), range(steps + 3), strict=False):
            start = time.perf_counter()
            train_state.optimizer.zero_grad()
            model(batch)[0].backward()
            train_state.optimizer.step()
            seconds.append(time.perf_counter() - start)
    milliseconds = statistics.median(seconds[3:]) * 1e3
    return {"optimizer": optimizer, "items": items, "ms": milliseconds, "resident_mb": resident_mb()}


def in_a_process(optimizer: str, items: int, arguments: argparse.Namespace) -> dict[str, Any]:
    asked = ["--measure", optimizer, "--items", str(items)]
    settings = ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
    command = [sys.executable, __file__, *asked, *settings]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(points: list[dict[str, Any]]) -> Table:
    table = Table("items (and users)", "optimizer", "ms a step", "resident MB", title="A BPRMF step of 1,024 rows")
    for point in points:
        table.add_row(f"{point['items']:,}", point["optimizer"], f"{point['ms']:,.1f}", f"{point['resident_mb']:,.0f}")
    return table


def plot(points: list[dict[str, Any]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    quantities = {"ms": "time of a step, ms", "resident_mb": "resident memory, MB"}
    for axis, (quantity, label) in zip(figure.subplots(1, 2), quantities.items(), strict=True):
        for optimizer in COPIES:
            line = [point for point in points if point["optimizer"] == optimizer]
            axis.loglog([p["items"] for p in line], [p[quantity] for p in line], marker="o", label=optimizer)
        axis.set(xlabel="items, and as many users", ylabel=label)
        axis.legend()
    figure.savefig(file)


def main() -> None:
    arguments = parse_arguments()
    if arguments.measure:
        [items] = arguments.items
        print(json.dumps(measure(arguments.measure, items, arguments.steps, arguments.threads)))
        return
    points = [
        in_a_process(optimizer, items, arguments)
        for items in arguments.items
        for optimizer, copies in COPIES.items()
        if copies * 2 * items * DIM * 4 < arguments.memory * 2**30
    ]
    Console().print(show(points))
    if arguments.json:
        write_measurements(arguments.json, {"points": points})
    if arguments.plot:
        plot(points, arguments.plot)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = [10_000, 100_000, 1_000_000, 10_000_000]
    parser.add_argument("--items", type=int, nargs="+", default=sizes)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=float, default=8.0, metavar="GB", help="for tables, gradients and moments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the measurements")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw them")
    parser.add_argument("--measure", choices=COPIES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
