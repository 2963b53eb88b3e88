"""Time to continue 1,000 sequences: FANS decodes all target positions at once, BERT4Rec one after the other.

    python benchmarks/sequential_decoding.py --json FILE

At the paper's settings: d = 64, three layers, eight heads; as many given items as are to be found, 5 or 10; the ten
best items ranked at every position. Catalogues of 6,264 items (Art of the Mix) and of 60,000. Weights and lists are
random: neither model's work depends on their values. Only decoding is timed (`continue_sequences`), not the merging of
positions nor the metrics. In a round the models take turns; medians over rounds, and the ratio is taken round by round.

"ranking alone" is the part that both share, scoring all items at every position, which is why the ratio is not the
number of positions: only the encoder runs once instead of once for every position. The machine must be idle.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from measured import write_measurements
from rich.console import Console
from rich.table import Table
from torch import nn

from cove_dist.models.sequential.bert4rec import BERT4Rec
from cove_dist.models.sequential.fans import FANS
from cove_dist.tasks.sequential.decoding import Request, continue_sequences
from cove_dist.tasks.sequential.ranking import Catalogue

DIM, LAYERS, HEADS, DEPTH = 64, 3, 8, 10
MODELS = {model.__name__: model for model in (FANS, BERT4Rec)}
Case = tuple[int, int]  # items of the catalogue, target positions


def build(name: str, targets: int) -> nn.Module:
    return MODELS[name](DIM, targets, targets, num_layers=LAYERS, num_heads=HEADS).eval()


def random_catalogue(items: int) -> Catalogue:
    rows = torch.randn(items + 1, DIM)
    return Catalogue(rows, rows[:items])


def decode_seconds(model: nn.Module, catalogue: Catalogue, targets: int, lists: int, batch: int) -> float:
    """Return the seconds to decode `lists` sequences, a batch at a time."""
    seconds = 0.0
    for begin in range(0, lists, batch):
        size = min(batch, lists - begin)
        items = torch.randint(len(catalogue.scored), (size, targets))
        lengths = torch.full((size,), targets)
        request = Request(items, lengths.clone(), lengths, None)
        start = time.perf_counter()
        continue_sequences(model, catalogue, request, DEPTH)
        seconds += time.perf_counter() - start
    return seconds


@torch.no_grad()
def ranking_seconds(catalogue: Catalogue, targets: int, lists: int, batch: int) -> float:
    """Return the seconds to rank all items at all positions, without a model."""
    seconds = 0.0
    for begin in range(0, lists, batch):
        hidden = torch.randn(min(batch, lists - begin) * targets, DIM)
        start = time.perf_counter()
        catalogue.rank(hidden, DEPTH)
        seconds += time.perf_counter() - start
    return seconds


def measure_round(case: Case, lists: int, batch: int) -> dict[str, float]:
    """Seconds of each model, and of the ranking alone."""
    items, targets = case
    catalogue = random_catalogue(items)
    models = {name: build(name, targets) for name in MODELS}
    for model in models.values():
        decode_seconds(model, catalogue, targets, batch, batch)  # warm-up
    seconds = {name: decode_seconds(model, catalogue, targets, lists, batch) for name, model in models.items()}
    return {**seconds, "ranking": ranking_seconds(catalogue, targets, lists, batch)}


def summarize(case: Case, rounds: list[dict[str, float]], lists: int) -> dict[str, Any]:
    """Return median seconds per 1,000 sequences; BERT4Rec's over FANS's: median, lowest and highest."""
    items, targets = case
    ratios = sorted(entry["BERT4Rec"] / entry["FANS"] for entry in rounds)
    medians = {name: 1e3 / lists * statistics.median(entry[name] for entry in rounds) for name in rounds[0]}
    ratio = {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
    return {"items": items, "targets": targets, **medians, **ratio}


def show(summary: list[dict[str, Any]]) -> Table:
    table = Table("items", "target items", *MODELS, "ranking alone", "BERT4Rec / FANS", title="Seconds per 1,000 lists")
    for record in summary:
        seconds = (f"{record[name]:.3f}" for name in (*MODELS, "ranking"))
        ratio = f"{record['ratio']:.2f} ({record['lowest']:.2f} to {record['highest']:.2f})"
        table.add_row(f"{record['items']:,}", str(record["targets"]), *seconds, ratio)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--items", type=int, nargs="+", default=[6_264, 60_000], help="of the catalogue (default: %(default)s)")
    add("--targets", type=int, nargs="+", default=[5, 10], help="items to be found (default: %(default)s)")
    add("--lists", type=int, default=1_000, help="of a round (default: %(default)s)")
    add("--batch", type=int, default=250, help="lists decoded together (default: %(default)s)")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=2)
    add("--json", type=Path, metavar="FILE", help="every round's measurements")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    cases = [(items, targets) for items in arguments.items for targets in arguments.targets]
    rounds: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    for number in range(arguments.rounds):
        for case, measured in rounds.items():
            measured.append(measure_round(case, arguments.lists, arguments.batch))
            seconds = ", ".join(f"{name} {value:.3f} s" for name, value in measured[-1].items())
            print(f"round {number + 1}, {case[0]:,} items, {case[1]} targets: {seconds}", flush=True)
    summary = [summarize(case, measured, arguments.lists) for case, measured in rounds.items()]
    console = Console()
    console.width = max(console.width, 100)
    console.print(show(summary))
    if arguments.json:
        settings = {key: getattr(arguments, key) for key in ("lists", "batch", "threads")}
        every = [{"items": items, "targets": targets, "rounds": r} for (items, targets), r in rounds.items()]
        write_measurements(arguments.json, {"settings": settings, "summary": summary, "cases": every})


if __name__ == "__main__":
    main()
