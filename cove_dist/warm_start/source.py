"""The run that another one starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.checkpoints.files import CheckpointFolder, CheckpointMeta, read_meta
from cove_dist.checkpoints.io import newest_sound
from cove_dist.checkpoints.manifest import verify
from cove_dist.checkpoints.stored_rows import StoredTensors
from cove_dist.config import RunConfig
from cove_dist.errors import CheckpointError, ConfigError
from cove_dist.runs import CHECKPOINTS
from cove_dist.tasks.saved_data import load_run_with_data
from data_pipeline.errors import DataError
from data_pipeline.fingerprint import data_fingerprint
from data_pipeline.schema import Schema

Description = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A verified checkpoint of the run to start from, with its data.

    Attributes:
        run: Folder of the run.
        config: Configuration of the run.
        schema: Schema of its data, whose folder still has the id tables.
        checkpoint: Folder of the checkpoint.
        meta: Description of the checkpoint.
        tensors: Tensors of the checkpoint.
    """

    run: Path
    config: RunConfig
    schema: Schema
    checkpoint: Path
    meta: CheckpointMeta
    tensors: StoredTensors

    @property
    def steps(self) -> int:
        """Optimizer steps of the moments: of the run, and of those that it was started from in turn."""
        return self.meta.step + int(self.meta.progress.get("steps_before", 0))


def open_source(config: RunConfig) -> Source:
    """Open the run that ``warm_start.run`` names. Collective.

    Raises:
        ConfigError: The folder holds no run, or its data are gone or no longer those that it was trained on.
        CheckpointError: The run has no complete checkpoint, or the best one is unknown or damaged. Without a validation
            split, the newest is used as the best.
    """
    settings = config.warm_start
    saved, run = load_run_with_data(str(settings.run))
    files = CheckpointFolder(run / CHECKPOINTS)
    if settings.checkpoint == "best":
        found = find_checkpoint(run, saved, "best", "warm_start.checkpoint")
        verify(found)
    elif (newest := newest_sound(files)) is not None:
        found = newest
    else:
        raise CheckpointError(
            f"warm_start.run = {run}: {files.folder} has no complete checkpoint; train that run first"
        )
    meta = read_meta(found)
    return Source(run, saved, _schema(run, saved, meta), found, meta, StoredTensors(found))


def _schema(run: Path, saved: RunConfig, meta: CheckpointMeta) -> Schema:
    """Return the schema of the run's data, which must be unchanged: rows are numbered by its id tables."""
    path = saved.data.path
    remedy = (
        "Rows are matched by the original ids in the id tables of these data: restore them, and prepare new data into"
        " another folder"
    )
    try:
        schema, found = Schema.load(path), data_fingerprint(path)
    except DataError as error:
        raise ConfigError(f"warm_start.run = {run}: its data cannot be read: {error}. {remedy}") from error
    if meta.data and meta.data != found:
        raise ConfigError(f"warm_start.run = {run}: its data, {path}, have changed since it was trained. {remedy}")
    return schema


def check_fits(source: Source, former: Description, current: Description, config: RunConfig, schema: Schema) -> None:
    """Refuse a run with another model, other columns or another optimizer. Numbers of rows may differ.

    Args:
        source: The run to start from.
        former, current: `training.build.describe_model` of that run and of this one.
        config, schema: Configuration and data of this run.

    Raises:
        ConfigError: Names every key that differs, with both values.
    """
    pairs = {
        **_compared(former, current),
        "columns": (_columns(source.schema), _columns(schema)),
        "attributes": (list(source.schema.attributes), list(schema.attributes)),
        "embeddings.optimizer.name": (source.config.embeddings.optimizer.name, config.embeddings.optimizer.name),
        "trainer.optimizer.name": (source.config.trainer.optimizer.name, config.trainer.optimizer.name),
    }
    hashed = [column.name for each in (source.schema, schema) for column in each.categorical if column.buckets]
    if hashed:
        raise ConfigError(
            f"warm_start.run = {source.run}: {hashed[0]} has hash buckets, whose rows stand for several ids and cannot"
            " be matched; allowed with data prepared with rare=oov"
        )
    lines = [f"  {key}: {there} there, {here} here" for key, (there, here) in pairs.items() if there != here]
    if lines:
        raise ConfigError(
            f"warm_start.run = {source.run}: has another model:\n" + "\n".join(lines) + "\nUse its values, or start"
            " without warm_start"
        )


def _compared(former: Description, current: Description) -> dict[str, tuple[Any, Any]]:
    """Return the two values of every key; the arguments of the model one by one, and tables by name only."""
    flat = []
    for description in (former, current):
        values = json.loads(json.dumps(description))
        values |= {f"model.{key}": value for key, value in values.pop("model").items()}
        flat.append(values | {"tables": sorted(values["tables"])})
    return {key: (flat[0].get(key), flat[1].get(key)) for key in dict.fromkeys([*flat[0], *flat[1]])}


def _columns(schema: Schema) -> list[str]:
    """Return the columns of ids in order: models tell fields apart by their position."""
    return [column.name for column in schema.categorical]
