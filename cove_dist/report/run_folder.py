"""What a run left in its folder, as the report reads it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cove_dist.config.evaluation import declare_metrics
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import is_metric
from cove_dist.evaluation.metrics_files import Evaluated, all_metrics
from cove_dist.runs import (
    CONFIG_FILE,
    LOG_FILE,
    PROVENANCE_FILE,
    SUMMARY_FILE,
    Record,
    best_record,
    model_name,
    read_json,
    read_records,
)
from data_pipeline.schema import ENTITIES, Entity

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run folder's contents. The configuration is not checked: a run of an older version can be reported too.

    Attributes:
        config: Configuration as composed when the run began.
        records: Records of the log, in order.
        summary: Summary; empty until the run has finished.
        evaluated: Evaluations; empty until the run is evaluated.
        starts: Provenance of every start, the first one first; empty for a run of an older version.
    """

    folder: Path
    config: dict[str, Any]
    records: list[Record]
    summary: dict[str, Any]
    evaluated: list[Evaluated]
    starts: list[dict[str, Any]]

    @property
    def model(self) -> str:
        return model_name(self.config)

    @property
    def levels(self) -> dict[Entity, tuple[int, ...]]:
        """Codebook sizes of every entity that is quantized."""
        sizes = {entity: self.config["quantizer"][f"{entity}_levels"] for entity in ENTITIES}
        return {entity: tuple(levels) for entity, levels in sizes.items() if levels}

    @property
    def stopping_metric(self) -> str:
        return self.config["trainer"]["early_stopping"]["metric"]

    def of_kind(self, kind: str) -> list[Record]:
        return [record for record in self.records if record["kind"] == kind]

    def best_validation(self) -> Record | None:
        """Return the validation record with the best early-stopping metric, the earliest among equals.

        None if there is none, or no imported class declares the metric.
        """
        return best_record(self.records, self.stopping_metric) if is_metric(self.stopping_metric) else None


def load_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        ConfigError: It holds no run, or the run has no log.
    """
    config, log = folder / CONFIG_FILE, folder / LOG_FILE
    if not config.is_file():
        raise ConfigError(f"run = {folder}: no {CONFIG_FILE} there; give the folder that training named")
    records = read_records(log)
    if not records:
        raise ConfigError(f"{log}: no records; train first")
    values, starts = plain(read_yaml(config)), read_json(folder / PROVENANCE_FILE).get("starts", [])
    run = Run(folder, values, records, read_json(folder / SUMMARY_FILE), all_metrics(folder), starts)
    try:
        for message in declare_metrics(values):
            logger.warning("%s", message)
        _ = run.model, run.stopping_metric, values["seed"], Path(values["data"]["path"])
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{config}: not the configuration of a run: {type(error).__name__} at {error}") from error
    return run


def series(records: Sequence[Record], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Return two values of the records that have both, as float64 arrays of one length."""
    points = [(record[x], record[y]) for record in records if x in record and y in record]
    first, second = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return first, second
