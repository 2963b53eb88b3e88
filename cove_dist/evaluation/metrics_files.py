"""Metrics files ``metrics_<split>_<checkpoint>.json`` of run folders, and checks whether they may share a table.

In addition to the metrics, a file states the split, checkpoint, protocol and data. Metrics of two files may share a
table only if these agree.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import is_metric
from cove_dist.evaluation.frequency import is_grouped
from data_pipeline.json_files import write_json

logger = logging.getLogger(__name__)

Split = Literal["validation", "test"]
Kind = Literal["best", "newest"]

# Part of a protocol that names metrics without changing them: files that differ in it may share a table.
_CHOICES = ("ndcg_at", "hit_rate_at", "rankings", "labels")
_BOUND = "_error"  # of the name of a metric's error bound, after that of the metric


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a run.

    Attributes:
        split: Evaluated split.
        kind: ``best`` by the early-stopping metric of the validation split, or ``newest``; None: no checkpoint, as for
            the popularity baseline.
        checkpoint: Folder name of the checkpoint, such as ``step_00000120``.
        step: Optimizer steps of the checkpoint.
        best_by: Metric by which the checkpoint is the best; None if it was not chosen by a metric.
        protocol: Ranking protocol, by setting: `cove_dist.evaluation.protocol.RankingProtocol.record`.
        data: Fingerprint of the split.
        metrics: Metrics by name; None if undefined.
    """

    split: Split
    kind: Kind | None
    checkpoint: str | None
    step: int | None
    best_by: str | None
    protocol: dict[str, Any]
    data: str
    metrics: dict[str, float | int | None]

    @property
    def words(self) -> str:
        """A description of what was evaluated and how."""
        checkpoint = "" if self.kind is None else f", {self.kind} checkpoint (step {self.step})"
        return f"{self.split} split{checkpoint}; {self.protocol['words']}"

    def defined(self) -> dict[str, float]:
        """Return the metrics that are defined."""
        return {name: value for name, value in self.metrics.items() if value is not None}

    def unknown(self) -> list[str]:
        """Return the names of values that are neither metrics with a direction, nor counts, nor bounds of metrics.

        They are of metric classes that were not imported, or that declare other names now. Metrics by frequency are
        left out.
        """
        floats = [name for name, value in self.metrics.items() if isinstance(value, float) and not is_grouped(name)]
        bare = {name: name.partition("/")[0].removesuffix(_BOUND) for name in floats}
        return [name for name in floats if not is_metric(name) and not is_metric(bare[name])]

    def save(self, folder: Path) -> Path:
        """Write the file into a run folder and return its path."""
        path = metrics_path(folder, self.split, self.kind)
        write_json(path, asdict(self))
        return path


def metrics_path(folder: Path, split: str, kind: str | None) -> Path:
    """Return the path of a run's metrics of a split and kind of checkpoint; None: a model without checkpoints."""
    return folder / (f"metrics_{split}.json" if kind is None else f"metrics_{split}_{kind}.json")


def load_metrics(folder: Path, split: str, kind: str) -> Evaluated:
    """Read the metrics of a run, or of a baseline without checkpoints.

    Raises:
        ConfigError: This evaluation does not exist; the message gives the command.
    """
    for path in (metrics_path(folder, split, kind), metrics_path(folder, split, None)):
        if path.is_file():
            return read_metrics(path)
    raise ConfigError(
        f"{metrics_path(folder, split, kind)}: no such file; evaluate the run first: cove evaluate"
        f" run={folder} split={split} checkpoint={kind}"
    )


def all_metrics(folder: Path) -> list[Evaluated]:
    """Read all metrics files of a run; skip unreadable ones with a warning."""
    found = []
    for path in sorted(folder.glob("metrics_*.json")):
        try:
            found.append(read_metrics(path))
        except ConfigError as error:
            logger.warning("%s", error)
    return found


def read_metrics(path: Path) -> Evaluated:
    """Read one metrics file.

    Raises:
        ConfigError: The file is not a metrics file.
    """
    try:
        return TypeAdapter(Evaluated).validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ConfigError(
            f"{path}: not a metrics file ({where}: {first['msg'].lower()}); evaluate the run again"
        ) from error


def check_comparable(evaluated: Mapping[str, Evaluated]) -> list[str]:
    """Check that metrics may share a table.

    Args:
        evaluated: Evaluations by the name of the run.

    Returns:
        Differences that a reader must know, one sentence each: metrics missing from some runs, different choices of
        the best checkpoint.

    Raises:
        ConfigError: The task, the split's data or the protocol differs; names each, with its runs.
    """
    described = {name: _meaning(each) for name, each in evaluated.items()}
    refused = _differing(described)
    if refused:
        lines = "\n".join(f"  {line}" for line in refused)
        raise ConfigError(f"these runs cannot share a table, because their metrics mean different things:\n{lines}")
    chosen = {name: {key: each.protocol.get(key) for key in _CHOICES} for name, each in evaluated.items()}
    best = {name: {"best checkpoint by": each.best_by} for name, each in evaluated.items() if each.kind == "best"}
    return [f"Differs between the runs: {line}." for line in [*_differing(chosen), *_differing(best)]]


def _meaning(evaluated: Evaluated) -> dict[str, Any]:
    settings = {key: value for key, value in evaluated.protocol.items() if key not in (*_CHOICES, "words")}
    return {"split": evaluated.split} | settings | {"data of the split": evaluated.data[:12]}


def _differing(described: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line per key whose values differ: each value with the names that have it."""
    lines = []
    for key in dict.fromkeys(key for values in described.values() for key in values):
        names: dict[str, list[str]] = {}
        for name, values in described.items():
            names.setdefault(str(values.get(key)), []).append(name)
        if len(names) > 1:
            lines.append(f"{key}: " + "; ".join(f"{value} in {_listed(runs)}" for value, runs in names.items()))
    return lines


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
