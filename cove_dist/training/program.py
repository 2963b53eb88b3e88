"""The training program, from overrides to the files of the run folder.

What a run folder holds is in `cove_dist.runs`.
"""

from __future__ import annotations

import logging
import signal
import statistics
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.config import RunConfig
from cove_dist.console import counted
from cove_dist.distributed import DistributedContext, barrier, process_group
from cove_dist.errors import ConfigError, DivergedError
from cove_dist.faults.attempts import mark_begun, was_begun
from cove_dist.faults.diverged import explained
from cove_dist.faults.outputs import check_writable
from cove_dist.faults.run_lock import locked
from cove_dist.faults.signals import Interrupted, named_signals
from cove_dist.runs import (
    CHECKPOINTS,
    LOG_FILE,
    SUMMARY_FILE,
    best_record,
    read_records,
)
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.training.accumulation import steps_of_epoch
from cove_dist.training.debug import debug_settings
from cove_dist.training.progress import Progress
from cove_dist.training.provenance import record_start
from cove_dist.training.resume import record_configuration, record_data
from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from data_pipeline.json_files import write_json
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import EpochIterator

logger = logging.getLogger(__name__)


def train(overrides: Sequence[str]) -> None:
    """Train the composed configuration. Collective.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: As in `Trainer`.
        Interrupted: Any rank received SIGTERM, SIGINT or SIGHUP; raised on every rank after the state is saved.
    """
    config, composed = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    folder = None if config.trainer.debug else Path(config.output)
    if folder is not None:
        check_writable(folder)
    resumes = folder is not None and resumes_run(folder, config.trainer.checkpoint.resume)
    at_once = named_signals("stopped outside of training; nothing to save", resumable=True)
    timeout = timedelta(seconds=config.trainer.timeout_seconds)
    with at_once, process_group(config.trainer.device, timeout) as context:
        lock = locked(folder) if folder is not None and context.is_main else nullcontext()
        with lock:
            if folder is not None and context.is_main:  # a training may have run there since the first check
                resumes_run(folder, config.trainer.checkpoint.resume)
            interrupted = train_here(config, composed, schema, context, folder, resumes)
    if interrupted is not None:  # raised after the process group is closed
        raise interrupted


def train_here(
    config: RunConfig,
    composed: DictConfig,
    schema: Schema,
    context: DistributedContext,
    folder: Path | None,
    resumes: bool,
) -> Interrupted | None:
    """Train in an existing process group until the end or a signal, which is returned. Collective."""
    if config.trainer.debug:
        config = debug_settings(config, context)
    trainer = Trainer(config, schema, context)
    changes = trainer.resume(folder) if folder is not None and resumes else []
    trainer.start_warm()
    barrier()  # settings, data and checkpoint are valid on every rank: files may be written from here on
    if folder is not None and context.is_main:
        mark_begun(folder)
        record_configuration(folder, composed, trainer.progress.step, changes, resumed=trainer.resumed)
        record_data(folder, schema)
        record_start(
            folder, trainer.progress.step, config.data.path, trainer.fingerprint, context, resumed=trainer.resumed
        )
        if trainer.warm_start is not None:
            trainer.warm_start.save(folder)
            trainer.warm_start.report()
        if not trainer.finished():
            (folder / SUMMARY_FILE).unlink(missing_ok=True)  # from an earlier end of this run
    barrier()
    try:
        progress = trainer.train(folder)
    except DivergedError as error:
        newest = None if folder is None else CheckpointFolder(folder / CHECKPOINTS).newest()
        batches, data = batches_of_step(trainer, error.step), Path(config.data.path)
        weights = {key: value for key, value in task_of(config).weights(config).items() if value}
        raise explained(error, batches, context.rank, data, schema, folder, newest, weights) from error
    if folder is not None and context.is_main and trainer.finished():
        write_summary(folder, progress, config, context)
    return interruption(trainer, folder) if trainer.stopped_by else None


def batches_of_step(trainer: Trainer, step: int) -> list[Batch]:
    """Read this rank's batches of a step of the current epoch again, which gives the same rows."""
    progress, size = trainer.progress, trainer.config.trainer.accumulate_steps
    index = steps_of_epoch(progress.batches, size) - 1 - (progress.step - step)  # of the step in the epoch
    first, end = index * size, min((index + 1) * size, progress.batches)
    with closing(EpochIterator(trainer.train_loader.stream, progress.epoch, first)) as batches:
        return list(islice(batches, end - first))


def interruption(trainer: Trainer, folder: Path | None) -> Interrupted:
    """Return the exception that describes the signal, the step and the saved state."""
    name, step = signal.Signals(trainer.stopped_by).name, trainer.progress.step
    if folder is None:
        what = f"stopped at step {step}; debug=true saves nothing"
    elif trainer.finished():
        what = f"the run was complete, at step {step}"
    else:
        newest = CheckpointFolder(folder / CHECKPOINTS).newest()
        what = f"stopped at step {step}; saved {newest}. Continue with trainer.checkpoint.resume=auto"
    return Interrupted(trainer.stopped_by, f"{name}: {what}", resumable=True)


def resumes_run(folder: Path, resume: Literal["no", "auto"]) -> bool:
    """Return whether training resumes from the checkpoints of a folder; refuse to overwrite another run.

    When torchrun restarts its ranks (``--max-restarts``), they continue the run that it started, even without
    ``resume=auto``.

    Raises:
        ConfigError: The folder has checkpoints and ``resume`` is ``no``, or was trained and has no checkpoints left.
    """
    resumes = resume == "auto" or was_begun(folder)
    if CheckpointFolder(folder / CHECKPOINTS).steps():
        if not resumes:
            raise ConfigError(
                f"output = {folder}: already holds a run."
                " Continue it with trainer.checkpoint.resume=auto, or choose another output."
            )
    elif (folder / SUMMARY_FILE).is_file():
        raise ConfigError(f"output = {folder}: holds a trained run without checkpoints; choose another output")
    return resumes


def write_summary(folder: Path, progress: Progress, config: RunConfig, context: DistributedContext) -> None:
    """Write the summary for the comparison of runs: the last step, the best validation metric, and the speed.

    ``samples_per_second`` is the median over reports; null after a single step.
    """
    records, stopping = read_records(folder / LOG_FILE), config.trainer.early_stopping
    speeds = [record["samples_per_second"] for record in records if "samples_per_second" in record]
    best = best_record(records, stopping.metric)
    summary = asdict(progress) | {
        "best": None if best is None else best[stopping.metric],
        "best_step": None if best is None else best["step"],
        "world_size": context.world_size,
        "device": context.device.type,
        "samples_per_second": statistics.median(speeds) if speeds else None,
    }
    write_json(folder / SUMMARY_FILE, summary)
    done = (counted(progress.step, "step"), counted(progress.epoch, "epoch"))
    logger.info("Trained %s, %s; run folder %s", *done, folder)
