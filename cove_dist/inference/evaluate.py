"""Evaluating a checkpoint of a run: metrics of a split, and the score of every row where the task can save them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.checkpoints.files import read_meta
from cove_dist.config import RunConfig, settings
from cove_dist.config.composition import load_settings
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.errors import ConfigError
from cove_dist.evaluation.metrics_files import Evaluated
from cove_dist.faults.outputs import check_writable
from cove_dist.inference.checkpoints import load_trained
from cove_dist.inference.folders import replaced_folder
from cove_dist.inference.request import RunRequest
from cove_dist.runs import UNKNOWN, read_trained_pairs
from cove_dist.tasks.frequency import frequency_groups
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.task import Task
from cove_dist.types import PositiveInt
from data_pipeline.errors import OutputError, UserError
from data_pipeline.fingerprint import split_fingerprint
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


@settings
class EvaluateConfig(RunRequest):
    split: Literal["validation", "test"]
    batch_size: PositiveInt | None
    by_frequency: bool | None
    save_predictions: bool


class NotSavedError(UserError):
    """Metrics were computed and could not be saved.

    Attributes:
        evaluated: The metrics.
    """

    def __init__(self, message: str, evaluated: Evaluated) -> None:
        super().__init__(message)
        self.evaluated = evaluated


def evaluate_run(overrides: Sequence[str]) -> Evaluated | None:
    """Evaluate a run's checkpoint and write ``metrics_<split>_<checkpoint>.json``. Collective.

    Args:
        overrides: Settings of ``cove evaluate``.

    Returns:
        The content of the file on rank 0; None on other ranks.

    Raises:
        NotSavedError: The file could not be written; holds the metrics.
    """
    request = load_settings(EvaluateConfig, "evaluate", overrides)
    config, folder = request.load()
    if request.batch_size is not None:
        config = replace(config, trainer=replace(config.trainer, evaluation_batch_size=request.batch_size))
    check_request(request, task_of(config))
    schema = Schema.load(config.data.path)
    schema.require_split(request.split)
    if request.save_predictions:
        check_writable(folder, "run")
    with process_group(request.device) as context:
        metrics, checkpoint = evaluate_here(config, schema, context, folder, request)
        if not context.is_main:
            return None
        evaluated = describe_evaluation(config, schema, request, checkpoint, metrics)
    try:
        evaluated.save(folder)
    except OutputError as error:
        raise NotSavedError(f"the metrics could not be saved: {error}", evaluated) from error
    return evaluated


def describe_evaluation(
    config: RunConfig, schema: Schema, request: EvaluateConfig, checkpoint: Path, metrics: dict[str, float]
) -> Evaluated:
    """Return the metrics with everything that must agree between compared runs."""
    split = request.split
    protocol = task_of(config).protocol(config, schema, split).record()
    trained_before = read_trained_pairs(Path(request.run), split)
    if trained_before:  # not to be compared with metrics of rows that are new to a model
        known = trained_before != UNKNOWN
        was, are = ("was", "are") if known else ("may have been", "may be")
        logger.warning(
            "The run's warm start %s trained on rows of the %s split: metrics %s better than the truth", was, split, are
        )
        words = f"{protocol['words']}; the warm start {was} trained on some of the rows"
        protocol |= {"words": words, "new_rows": False if known else UNKNOWN}
    return Evaluated(
        split=split,
        kind=request.checkpoint,
        checkpoint=checkpoint.name,
        step=read_meta(checkpoint).step,
        best_by=config.trainer.early_stopping.metric if request.checkpoint == "best" else None,
        protocol=protocol,
        data=split_fingerprint(config.data.path, schema, split),
        metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()},
    )


def check_request(request: EvaluateConfig, task: Task[Any]) -> None:
    """Refuse what a task cannot evaluate.

    Raises:
        ConfigError: Predictions or metrics by frequency, of a task without them.
    """
    if request.save_predictions and not task.saves_predictions:
        raise ConfigError("save_predictions = true: for CTR models; recommendations: cove recommend")
    if request.by_frequency and not task.by_frequency:
        raise ConfigError(f"by_frequency = true: {task.title} have no metrics by frequency; allowed: null, false")


def evaluate_here(
    config: RunConfig, schema: Schema, context: DistributedContext, folder: Path, request: EvaluateConfig
) -> tuple[dict[str, float], Path]:
    """Evaluate in an existing process group. Collective."""
    checkpoint = find_checkpoint(folder, config, request.checkpoint)
    batch_size = config.trainer.rank_evaluation_batch_size(context.world_size)
    model = load_trained(config, schema, context, checkpoint, batch_size)
    task, groups = task_of(config), {}
    if request.by_frequency is not False and task.by_frequency:
        groups = frequency_groups(config, schema, context)
    if not request.save_predictions:
        return task.build_evaluator(config, schema, request.split, context, groups)(model), checkpoint
    with replaced_folder(folder / predictions_folder(request), context) as target:
        evaluator = task.build_saving_evaluator(config, schema, request.split, context, groups, target)
        return evaluator(model), checkpoint


def predictions_folder(request: EvaluateConfig) -> str:
    """Return the folder of predictions; those of the newest checkpoint do not replace those of the best."""
    return f"predictions_{request.split}" + ("_newest" if request.checkpoint == "newest" else "")
