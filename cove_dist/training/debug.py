"""Debug mode: one device, deterministic algorithms, anomaly detection, a few batches, shapes logged once."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError

logger = logging.getLogger(__name__)

STEPS = 5


def debug_settings(config: RunConfig, context: DistributedContext) -> RunConfig:
    """Configure torch for debugging and shorten the run.

    Raises:
        ConfigError: There is more than one rank.
    """
    if context.world_size > 1:
        raise ConfigError(f"trainer.debug = true: needs one process, got {context.world_size}; use cove train")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at the first product
    torch.use_deterministic_algorithms(True)
    torch.autograd.set_detect_anomaly(True)
    trainer = replace(config.trainer, max_steps=min(STEPS, config.trainer.max_steps or STEPS), log_every=1)
    return replace(config, trainer=trainer)


def show_shapes_once(model: nn.Module) -> None:
    """Log each submodule's input and output shapes in its first forward pass."""
    for name, module in model.named_modules():
        if name:
            _show_once(name, module)


def _show_once(name: str, module: nn.Module) -> None:
    def show(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        logger.info("%s (%s): %s -> %s", name, type(module).__name__, _shapes(inputs), _shapes(output))
        handle.remove()

    handle = module.register_forward_hook(show)


def _shapes(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return str(list(value.shape))
    if isinstance(value, (tuple, list)):
        return ", ".join(_shapes(item) for item in value)
    return type(value).__name__
