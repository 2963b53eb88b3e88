"""Run folders: names of the files, and reading and writing of the shared ones.

``config.yaml`` (composed), ``config_history.jsonl`` (what a resumed run changed), ``provenance.json`` (command, commit,
versions and machine of every start), ``data.json`` (digests of the data), ``warm_start.json`` (ids that a warm start
matched), ``log.jsonl``, ``tensorboard/`` and ``checkpoints/``; ``summary.json`` after training;
``metrics_<split>_<checkpoint>.json`` after evaluation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import higher_is_better
from data_pipeline.files import replaced_file
from data_pipeline.json_files import read_record

CONFIG_FILE, HISTORY_FILE, LOG_FILE = "config.yaml", "config_history.jsonl", "log.jsonl"
DATA_FILE, PROVENANCE_FILE, WARM_START_FILE = "data.json", "provenance.json", "warm_start.json"
UNKNOWN = "unknown"  # in warm_start.json, in the place of a number
SUMMARY_FILE, CHECKPOINTS, CODES_FILE = "summary.json", "checkpoints", "codes.json"

Record = dict[str, Any]


def save_config(composed: DictConfig, folder: Path) -> None:
    """Write a run's composed configuration atomically."""
    with replaced_file(folder / CONFIG_FILE) as file:
        OmegaConf.save(composed, file)


def model_name(config: Mapping[str, Any]) -> str:
    """Return the name of a run's model, such as ``COVE-DeepFM``: with COVE if codes change what the embeddings are.

    They do by being added back (``alpha``), or by a loss that reaches the embeddings (``beta``, ``omega_c``).
    """
    name = config["model"]["_target_"].rpartition(".")[2]
    quantizer = config["quantizer"]
    levels = quantizer["user_levels"] or quantizer["item_levels"]
    acts = any(quantizer.get(weight) for weight in ("alpha", "beta", "omega_c"))
    return f"COVE-{name}" if levels and acts else name


def read_json(path: Path) -> dict[str, Any]:
    """Return the values of a JSON file; empty if the file does not exist.

    Raises:
        ConfigError: The file is not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}. Remove it") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a JSON object. Remove it")
    return values


def log_record(line: str) -> Record:
    """Read a line of ``log.jsonl``: ``kind``, ``step``, and numbers by name; undefined metrics become nan.

    Raises:
        ValueError: The line is something else.
    """
    record = read_record(line)
    if not isinstance(record.get("kind"), str) or not isinstance(record.get("step"), int):
        raise ValueError("kind and step are missing")
    if wrong := [name for name, value in record.items() if name != "kind" and not isinstance(value, int | float)]:
        raise ValueError(f"{wrong[0]} is not a number")
    return record


def read_records(path: Path, parse: Callable[[str], Record] = log_record) -> list[Record]:
    """Read the records of a log that may be growing.

    An incomplete last line is skipped: it is being written, or its writer was killed.

    Args:
        path: Path of the log; no records if it does not exist.
        parse: Parser of a line, which raises ValueError; by default `log_record`.

    Raises:
        ConfigError: Another line is not a record.
    """
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    records = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            records.append(parse(line))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: not a record ({error}); remove the line") from error
    return records


def read_history(folder: Path) -> list[Record]:
    """Return what resumed runs changed in the configuration, oldest first: step, time, key, old and new value."""
    return read_records(folder / HISTORY_FILE, json.loads)


def best_record(records: Iterable[Record], metric: str) -> Record | None:
    """Return the validation record with the best value of a metric, the earliest among equals; None if none has it."""
    scored = [r for r in records if r["kind"] == "validation" and math.isfinite(r.get(metric, math.nan))]
    return (max if higher_is_better(metric) else min)(scored, key=lambda record: record[metric], default=None)


def read_trained_pairs(folder: Path, split: str) -> int | str:
    """Return how many pairs of a split the runs that a run started from were trained on; 0 where none are compared.

    Args:
        folder: Run folder.
        split: ``validation`` or ``test``.

    Returns:
        The number of pairs, or `UNKNOWN` if the data of an earlier run were not found.
    """
    pairs = read_json(folder / WARM_START_FILE).get("trained_pairs", {})
    return pairs.get(split) or 0
