"""Small runs of the trainer in this process, for the sections that need one."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import cycle, islice
from typing import Any

import torch
from clock import Bench

from cove_dist.console import quiet_libraries
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema

_OPEN = ExitStack()  # the process group of this process, which ends with it


@cache
def context_of(bench: Bench) -> DistributedContext:
    """Join a process group of one rank, once per process."""
    quiet_libraries()
    return _OPEN.enter_context(process_group(bench.device.type))


def build_trainer(overrides: Sequence[str], bench: Bench, device: str | None = None) -> Trainer:
    """Build a trainer in training mode.

    Args:
        overrides: Overrides of the run.
        bench: Where it runs.
        device: ``cpu`` instead of the device of the bench.
    """
    gc.collect()  # earlier trainers hold reference cycles, and their tables with them
    context = context_of(bench)
    if device is not None:
        context = replace(context, device=torch.device(device))
    config, _ = load_run_config([*overrides, f"trainer.device={context.device.type}", "output=unused"])
    trainer = Trainer(config, Schema.load(config.data.path), context)
    trainer.train_state.model.train()
    return trainer


def batches_in_memory(trainer: Trainer, count: int) -> list[Batch]:
    """Return the first batches of an epoch, page-locked for CUDA; fewer if the epoch is shorter."""
    return list(islice(iter(trainer.train_loader), count))


def endless_steps(trainer: Trainer, batches: Sequence[Batch]) -> Iterator[Any]:
    """Yield the outputs of training steps on batches that are repeated, with the maintenance after each step."""
    for output in trainer.steps(cycle(batches)):
        trainer.interval_metrics.add(output, trainer.codebooks.after_step(trainer.progress.step))
        yield output
