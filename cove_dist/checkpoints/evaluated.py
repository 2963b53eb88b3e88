"""Whether stored metrics are of the checkpoint that is the best, or the newest, now."""

from __future__ import annotations

import logging
from pathlib import Path

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.errors import CheckpointError, ConfigError
from cove_dist.evaluation.metrics_files import Evaluated
from cove_dist.runs import CHECKPOINTS

logger = logging.getLogger(__name__)


def check_current(folder: Path, evaluated: Evaluated) -> None:
    """Refuse metrics of a checkpoint that is no longer the best or newest. Without checkpoints this is not checked.

    Where a checkpoint is damaged, or no metric has the name of the one that chose the best, it cannot be checked, which
    is a warning: metrics do not need it.

    Raises:
        ConfigError: Another checkpoint is the best, or the newest, now.
    """
    files = CheckpointFolder(folder / CHECKPOINTS)
    try:
        current = files.newest() if evaluated.best_by is None else files.best(evaluated.best_by) or files.newest()
    except (CheckpointError, ConfigError) as error:
        logger.warning("Cannot check that metrics are of the %s checkpoint: %s", evaluated.kind, error)
        return
    if evaluated.checkpoint is not None and current is not None and current.name != evaluated.checkpoint:
        raise ConfigError(
            f"{folder}: its metrics are of {evaluated.checkpoint}, but {current.name} is the {evaluated.kind}"
            f" checkpoint now; evaluate it again: cove evaluate run={folder} split={evaluated.split}"
            f" checkpoint={evaluated.kind}"
        )
