"""Distributed training of ID-based recommenders with co-evolving vector quantization (COVE).

The names below are imported on first use: ``import cove_dist`` is fast and requires only Python.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["CascadedQuantizer", "Run", "__version__", "load", "plan", "prepare", "train"]

if TYPE_CHECKING:
    from cove_dist.api import Run, load, plan, prepare, train
    from cove_dist.quantization import CascadedQuantizer

_MODULES = {"CascadedQuantizer": "quantization"} | dict.fromkeys(("Run", "load", "plan", "prepare", "train"), "api")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'cove_dist' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"cove_dist.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
