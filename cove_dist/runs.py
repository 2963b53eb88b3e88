"""A run folder: the names of its files, and the files that every program reads or writes.

``config.yaml`` (composed), ``config_history.jsonl`` (what a resumed run changed), ``log.jsonl``, ``tensorboard/`` and
``checkpoints/``; ``summary.json`` once it is trained; ``metrics_<split>_<checkpoint>.json`` once it is evaluated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipeline.files import replaced_file

CONFIG_FILE, HISTORY_FILE, LOG_FILE = "config.yaml", "config_history.jsonl", "log.jsonl"
SUMMARY_FILE, METRICS_FILE, CHECKPOINTS = "summary.json", "metrics.json", "checkpoints"


def save_config(composed: DictConfig, folder: Path) -> None:
    """Write a run's composed configuration, complete or not at all."""
    with replaced_file(folder / CONFIG_FILE) as file:
        OmegaConf.save(composed, file)


def read_json(path: Path) -> dict[str, Any]:
    """Return the values of a JSON file; none where there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else {}
