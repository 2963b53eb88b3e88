"""Training and evaluating a run, from overrides to files in its folder.

A run folder holds ``config.yaml``, ``log.jsonl``, ``tensorboard/`` and ``checkpoints/``; once it is trained
``summary.json``, once it is evaluated ``metrics.json``.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf

from cove_dist.composition import check, check_run_config, compose_yaml, load_run_config
from cove_dist.config import RunConfig, settings
from cove_dist.errors import CheckpointError, ConfigError
from cove_dist.runs import CHECKPOINTS, CONFIG_FILE, LOG_FILE, METRICS_FILE, SUMMARY_FILE, save_config
from cove_dist.training.build import build, describe_model
from cove_dist.training.checkpoint import CheckpointFolder, load_model
from cove_dist.training.ctr_evaluator import PredictionWriter, evaluate, score
from cove_dist.training.debug import debug_settings
from cove_dist.training.distributed import Runtime, process_group
from cove_dist.training.folders import replaced_folder
from cove_dist.training.frequency import frequency_groups
from cove_dist.training.loaders import evaluation_loader
from cove_dist.training.reporting import read_records
from cove_dist.training.tasks import TASKS, task_of
from cove_dist.training.trainer import Position, Trainer
from cove_dist.types import PositiveInt
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


def train_here(config: RunConfig, composed: DictConfig, schema: Schema, runtime: Runtime, folder: Path | None) -> None:
    """Train in a process group that stands. Collective."""
    if config.trainer.debug:
        config = debug_settings(config, runtime)
    trainer = Trainer(config, schema, runtime)
    dist.barrier()  # on every rank the configuration and the data are sound: now files may appear
    if folder is not None and runtime.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        save_config(composed, folder)
    dist.barrier()
    position = trainer.train(folder)
    if folder is not None and runtime.is_main:
        write_summary(folder, position, runtime)


def refuse_existing_run(folder: Path, resume: Literal["no", "auto"]) -> None:
    """Raises ConfigError when a new run would overwrite the checkpoints of another."""
    if resume == "no" and CheckpointFolder(folder / CHECKPOINTS).complete():
        raise ConfigError(
            f"output = {folder}: holds a run already."
            " Go on with it by trainer.checkpoint.resume=auto, or give another output."
        )


def write_summary(folder: Path, position: Position, runtime: Runtime) -> None:
    """Keep what the comparison of runs needs: speed (median of the reports) and where training ended."""
    speeds = [r["samples_per_second"] for r in read_records(folder / LOG_FILE) if r["kind"] == "train"]
    summary = asdict(position) | {
        "world_size": runtime.world_size,
        "device": runtime.device.type,
        "samples_per_second": statistics.median(speeds) if speeds else None,
    }
    write_json(folder / SUMMARY_FILE, summary)
    logger.info("trained %d steps, %d epochs; run folder %s", position.step, position.epoch, folder)


@settings
class EvaluateConfig:
    run: str
    split: Literal["validation", "test"]
    checkpoint: Literal["best", "newest"]
    device: Literal["auto", "cpu", "cuda"]
    batch_size: PositiveInt | None
    by_frequency: bool
    save_predictions: bool


def evaluate_run(overrides: Sequence[str]) -> dict[str, float | None] | None:
    """Evaluate a run's checkpoint and write ``metrics.json``. Every rank calls it; rank 0 gets the metrics.

    A metric that is undefined is `None`, and null in the file: JSON has no nan.
    """
    request = check(EvaluateConfig, OmegaConf.to_container(compose_yaml("evaluate", overrides), throw_on_missing=False))
    config, folder = load_saved_run(request.run)
    if request.batch_size is not None:
        config = replace(config, trainer=replace(config.trainer, evaluation_batch_size=request.batch_size))
    if request.save_predictions and task_of(config) is not TASKS["ctr"]:
        raise ConfigError("save_predictions = true: for CTR models; recommendations: python launch/recommend.py")
    schema = Schema.load(config.data.path)
    with process_group(request.device) as runtime:
        metrics, checkpoint = evaluate_here(config, schema, runtime, folder, request)
        if not runtime.is_main:
            return None
        defined = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        record: dict[str, Any] = {"split": request.split, "checkpoint": checkpoint.name, **defined}
        write_json(folder / METRICS_FILE, record)
    return defined


def evaluate_here(
    config: RunConfig, schema: Schema, runtime: Runtime, folder: Path, request: EvaluateConfig
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
    scored = score(trainable.model, evaluation_loader(config, schema, request.split, runtime), runtime.device)
    with replaced_folder(folder / f"predictions_{request.split}", runtime) as target:
        writer = PredictionWriter(target / f"part-{runtime.rank:05d}.parquet", Path(config.data.path), schema)
        return evaluate(writer.write(scored), config.evaluation, runtime.device, groups), checkpoint


def load_saved_run(run: str) -> tuple[RunConfig, Path]:
    """The configuration that a run folder holds.

    Raises:
        ConfigError: the folder holds no run.
    """
    folder = Path(run)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"run = {run}: no {CONFIG_FILE} there; give the folder that training named")
    return check_run_config(OmegaConf.load(path)), folder


def find_checkpoint(folder: Path, config: RunConfig, which: Literal["best", "newest"]) -> Path:
    """Raises CheckpointError when there is none, or none whose metric is defined."""
    files = CheckpointFolder(folder / CHECKPOINTS)
    stopping, newest = config.trainer.early_stopping, files.newest()
    if newest is None:
        raise CheckpointError(f"{files.folder}: no complete checkpoint; train first")
    found = files.best(stopping.metric, stopping.mode) if which == "best" else newest
    if found is None:
        raise CheckpointError(
            f"{files.folder}: {stopping.metric} was undefined whenever it was evaluated, so no checkpoint is the best;"
            " give checkpoint=newest, or train with another trainer.early_stopping.metric"
        )
    return found
