"""Training throughput of one configuration; started by ``ctr_throughput.py`` and ``ranks.py``, directly or by torchrun.

Times whole training epochs by `Trainer`, data streamed from Parquet, without evaluation. Rank 0 prints one JSON line:
samples per second of all ranks, and the GFLOP of the matrix products in a step, divided by its rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from cove_dist.console import quiet_libraries
from cove_dist.distributed import process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema


def time_epochs(trainer: Trainer, epochs: int) -> float:
    """Return the median seconds per epoch, after an epoch of warm-up."""
    seconds = []
    for epoch in range(epochs + 1):
        trainer.train_loader.set_epoch(epoch)
        start = time.perf_counter()
        for output in trainer.steps(iter(trainer.train_loader)):
            trainer.interval_metrics.add(output, trainer.codebooks.after_step(trainer.progress.step))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def gflop_per_row(trainer: Trainer) -> float:
    """Count the GFLOP of the matrix products in one step, as torch dispatches them, per row."""
    batch = next(iter(trainer.train_loader))
    with FlopCounterMode(display=False) as counter:
        list(trainer.steps(iter([batch])))
    return counter.get_total_flops() / len(batch) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--epochs", type=int, default=3, help="timed, after one of warm-up")
    parser.add_argument("--threads", type=int, required=True, help="of each rank")
    parser.add_argument("overrides", nargs="+", help="of the configuration, as for cove train")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(arguments.threads)
    fixed = [f"data.path={arguments.data}", "trainer.device=cpu", "trainer.log_every=1000000"]
    config, _ = load_run_config([*arguments.overrides, *fixed])
    schema = Schema.load(arguments.data)
    with process_group("cpu") as context:
        trainer = Trainer(config, schema, context)
        trainer.train_state.model.train()
        seconds = time_epochs(trainer, arguments.epochs)
        gflop = gflop_per_row(trainer)
        if context.is_main:
            rows = schema.splits["train"].rows
            print(json.dumps({"samples_per_s": rows / seconds, "gflop_per_row": gflop}))


if __name__ == "__main__":
    main()
