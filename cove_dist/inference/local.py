"""Loading of a trained model into one process, without sharding, planner or process group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from cove_dist.checkpoints.io import load_weights
from cove_dist.config import RunConfig
from cove_dist.errors import ConfigError
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.registry import task_of
from cove_dist.training.build import describe_model
from data_pipeline.schema import Schema


def load_local(config: RunConfig, schema: Schema, checkpoint: Path, device: torch.device) -> TaskModel:
    """Load a checkpoint of any sharding and number of ranks into this process; the model is in eval mode.

    Raises:
        CheckpointError: The checkpoint is incomplete or of another model.
        ConfigError: The configuration does not fit the data.
    """
    config = replace(config, quantizer=config.quantizer.read_only())  # its search may be of another device
    with torch.random.fork_rng(devices=[]):  # do not change the caller's random generator
        model = task_of(config).build_model(config, schema)
    model.tables.to_empty(device=device)
    model.objective.to(device)
    load_weights(checkpoint, model, describe_model(config, schema))
    return model.eval()


def pick_device(device: str) -> torch.device:
    """Return the device for ``auto`` (CUDA if available), ``cpu`` or ``cuda``.

    Raises:
        ConfigError: The device is ``cuda``, and PyTorch finds no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = cuda: PyTorch finds no GPU; allowed here: auto, cpu")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
