"""Distributed training of ID-based recommenders with co-evolving vector quantization (COVE).

The names below are imported on first use: ``import cove_dist`` is fast and requires only Python.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "cove_dist.api": ("Run", "load", "plan", "prepare", "train"),
    "cove_dist.errors": ("CheckpointError", "ConfigError", "DivergedError", "TrainingError"),
    "cove_dist.inference.evaluate": ("NotSavedError",),
    "cove_dist.quantization": ("CascadedQuantizer",),
    "data_pipeline.errors": ("DataError", "UserError"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "CascadedQuantizer",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "NotSavedError",
    "Run",
    "TrainingError",
    "UserError",
    "__version__",
    "load",
    "plan",
    "prepare",
    "train",
]

if TYPE_CHECKING:
    from cove_dist.api import Run, load, plan, prepare, train
    from cove_dist.errors import CheckpointError, ConfigError, DivergedError, TrainingError
    from cove_dist.inference.evaluate import NotSavedError
    from cove_dist.quantization import CascadedQuantizer
    from data_pipeline.errors import DataError, UserError


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'cove_dist' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
