"""Training and evaluating a run, from overrides to files in its folder.

What a run folder holds is in `cove_dist.runs`.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from cove_dist.composition import load_run_config, load_settings
from cove_dist.config import RunConfig, settings
from cove_dist.distributed import DistributedContext, barrier, process_group
from cove_dist.errors import CheckpointError, ConfigError
from cove_dist.metrics_files import Evaluated, protocol_record
from cove_dist.runs import (
    CHECKPOINTS,
    LOG_FILE,
    SUMMARY_FILE,
    best_record,
    load_saved_run,
    read_records,
)
from cove_dist.tasks.ctr.evaluator import PredictionWriter, ctr_loader, evaluate, score
from cove_dist.tasks.frequency import frequency_groups
from cove_dist.tasks.registry import task_of
from cove_dist.training.build import build, describe_model
from cove_dist.training.checkpoint import CheckpointFolder, load_model, read_meta
from cove_dist.training.debug import debug_settings
from cove_dist.training.folders import replaced_folder
from cove_dist.training.resume import record_configuration
from cove_dist.training.trainer import Progress, Trainer
from cove_dist.types import PositiveInt, Text
from data_pipeline.fingerprint import split_fingerprint
from data_pipeline.json_files import write_json
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


def train(overrides: Sequence[str]) -> None:
    """Train the composed configuration. Every rank calls it.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: see there.
    """
    config, composed = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    folder = None if config.trainer.debug else Path(config.output)
    if folder is not None:
        refuse_existing_run(folder, config.trainer.checkpoint.resume)
    with process_group(config.trainer.device) as runtime:
        train_here(config, composed, schema, runtime, folder)


def train_here(
    config: RunConfig, composed: DictConfig, schema: Schema, runtime: DistributedContext, folder: Path | None
) -> None:
    """Train in a process group that stands. Collective."""
    if config.trainer.debug:
        config = debug_settings(config, runtime)
    trainer = Trainer(config, schema, runtime)
    changes = trainer.resume(folder) if folder is not None and config.trainer.checkpoint.resume == "auto" else []
    barrier()  # on every rank the settings, the data and the checkpoint are sound: now files may appear
    if folder is not None and runtime.is_main:
        record_configuration(folder, composed, trainer.position.step, changes)
        if not trainer.finished():
            (folder / SUMMARY_FILE).unlink(missing_ok=True)  # of an earlier end of this run
    barrier()
    position = trainer.train(folder)
    if folder is not None and runtime.is_main:
        write_summary(folder, position, config, runtime)


def refuse_existing_run(folder: Path, resume: Literal["no", "auto"]) -> None:
    """Refuse to overwrite another run.

    Raises:
        ConfigError: the folder has checkpoints and is not to be resumed, or was trained and has none left.
    """
    if CheckpointFolder(folder / CHECKPOINTS).complete():
        if resume == "no":
            raise ConfigError(
                f"output = {folder}: holds a run already."
                " Go on with it by trainer.checkpoint.resume=auto, or give another output."
            )
    elif (folder / SUMMARY_FILE).is_file():
        raise ConfigError(f"output = {folder}: holds a trained run without checkpoints to resume; give another output")


def write_summary(folder: Path, position: Progress, config: RunConfig, runtime: DistributedContext) -> None:
    """Keep what the comparison of runs needs: where training ended, its best validation, and its speed.

    ``samples_per_second`` is the median of the reports that have one: null after a single step.
    """
    records, stopping = read_records(folder / LOG_FILE), config.trainer.early_stopping
    speeds = [record["samples_per_second"] for record in records if "samples_per_second" in record]
    best = best_record(records, stopping.metric)
    summary = asdict(position) | {
        "best": None if best is None else best[stopping.metric],
        "best_step": None if best is None else best["step"],
        "world_size": runtime.world_size,
        "device": runtime.device.type,
        "samples_per_second": statistics.median(speeds) if speeds else None,
    }
    write_json(folder / SUMMARY_FILE, summary)
    logger.info("trained %d steps, %d epochs; run folder %s", position.step, position.epoch, folder)


@settings
class EvaluateConfig:
    run: Text
    split: Literal["validation", "test"]
    checkpoint: Literal["best", "newest"]
    device: Literal["auto", "cpu", "cuda"]
    batch_size: PositiveInt | None
    by_frequency: bool
    save_predictions: bool


def evaluate_run(overrides: Sequence[str]) -> Evaluated | None:
    """Evaluate a run's checkpoint and write ``metrics_<split>_<checkpoint>.json``. Every rank calls it.

    Returns:
        What the file holds, on rank 0; None on other ranks.
    """
    request = load_settings(EvaluateConfig, "evaluate", overrides)
    config, folder = load_saved_run(request.run)
    if request.batch_size is not None:
        config = replace(config, trainer=replace(config.trainer, evaluation_batch_size=request.batch_size))
    if request.save_predictions and not task_of(config).saves_predictions:
        raise ConfigError("save_predictions = true: for CTR models; recommendations: python launch/recommend.py")
    schema = Schema.load(config.data.path)
    schema.require_split(request.split)
    with process_group(request.device) as runtime:
        metrics, checkpoint = evaluate_here(config, schema, runtime, folder, request)
        if not runtime.is_main:
            return None
        evaluated = describe_evaluation(config, schema, request, checkpoint, metrics)
        evaluated.save(folder)
    return evaluated


def describe_evaluation(
    config: RunConfig, schema: Schema, request: EvaluateConfig, checkpoint: Path, metrics: dict[str, float]
) -> Evaluated:
    """Return the metrics with all that must agree between runs that are compared."""
    task, evaluation, split = task_of(config).name, config.evaluation, request.split
    protocol, rankings = evaluation.protocol(task, schema), evaluation.rankings(split)
    return Evaluated(
        split=split,
        kind=request.checkpoint,
        checkpoint=checkpoint.name,
        step=read_meta(checkpoint).step,
        best_by=config.trainer.early_stopping.metric if request.checkpoint == "best" else None,
        protocol=protocol_record(task, protocol, evaluation.ndcg_at, evaluation.hit_rate_at, rankings),
        data=split_fingerprint(config.data.path, schema, split),
        metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()},
    )


def evaluate_here(
    config: RunConfig, schema: Schema, runtime: DistributedContext, folder: Path, request: EvaluateConfig
) -> tuple[dict[str, float], Path]:
    """Evaluate in a process group that stands. Collective."""
    checkpoint = find_checkpoint(folder, config, request.checkpoint)
    trainable = build(config, schema, runtime, config.trainer.rank_evaluation_batch_size(runtime.world_size))
    load_model(checkpoint, trainable, describe_model(config, schema))
    task, groups = task_of(config), {}
    if request.by_frequency and task.by_frequency:
        groups = frequency_groups(config, schema, runtime)
    if not request.save_predictions:
        return task.build_evaluator(config, schema, request.split, runtime, groups)(trainable.model), checkpoint
    scored = score(trainable.model, ctr_loader(config, schema, request.split, runtime), runtime.device)
    with replaced_folder(folder / predictions_folder(request), runtime) as target:
        writer = PredictionWriter(target / f"part-{runtime.rank:05d}.parquet", Path(config.data.path), schema)
        return evaluate(writer.write(scored), config.evaluation, runtime.device, groups), checkpoint


def predictions_folder(request: EvaluateConfig) -> str:
    """Return where predictions go; those of the newest checkpoint do not replace those of the best."""
    return f"predictions_{request.split}" + ("_newest" if request.checkpoint == "newest" else "")


def find_checkpoint(folder: Path, config: RunConfig, which: Literal["best", "newest"]) -> Path:
    """Return a checkpoint of a run; of data without a validation split the newest stands for the best.

    Raises:
        CheckpointError: there is none, or none whose metric is defined.
    """
    files = CheckpointFolder(folder / CHECKPOINTS)
    stopping, newest = config.trainer.early_stopping, files.newest()
    if newest is None:
        raise CheckpointError(f"{files.folder}: no complete checkpoint; train first")
    found = files.best(stopping.metric) if which == "best" else newest
    if found is None and not Schema.load(config.data.path).has_split("validation"):
        logger.info(
            "The data have no validation split to tell the best checkpoint by: taking the newest, %s", newest.name
        )
        return newest
    if found is None:
        raise CheckpointError(
            f"{files.folder}: {stopping.metric} was undefined whenever it was evaluated, so no checkpoint is the best;"
            " give checkpoint=newest, or train with another trainer.early_stopping.metric"
        )
    return found
