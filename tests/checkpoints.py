"""Checkpoints as files, without tensors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cove_dist.checkpoints.files import META, CheckpointMeta, step_name
from cove_dist.checkpoints.manifest import describe_file, write_manifest
from data_pipeline.json_files import write_json


def write_checkpoint(folder: Path, step: int, metrics: dict[str, float] | None = None) -> Path:
    """Write a checkpoint that has only its description and manifest."""
    path = folder / step_name(step)
    path.mkdir(parents=True)
    write_json(path / META, asdict(CheckpointMeta(step, 1, {}, metrics or {}, {}, "data", None)))
    write_manifest(path, {META: describe_file(path / META)})
    return path
