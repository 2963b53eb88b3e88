"""Availability of the Triton kernels, whose modules import Triton on first use."""

from __future__ import annotations

import functools
import importlib.util

import torch


def usable(x: torch.Tensor) -> bool:
    """Return whether the kernels support a tensor: float32 on CUDA, with Triton installed."""
    return x.is_cuda and x.dtype == torch.float32 and _installed()


def runs_on(device_type: str) -> bool:
    """Return whether the kernels run on a device: Triton is installed, and it is CUDA, or CPU for the interpreter."""
    return _installed() and device_type == _device_type()


def require(x: torch.Tensor, setting: str, instead: str) -> None:
    """Raise an error if the kernels do not support a tensor.

    Args:
        x: The tensor; on CPU it needs Triton's interpreter, ``TRITON_INTERPRET=1``.
        setting: Setting that selects the kernels, such as ``search = 'triton'``.
        instead: Value that works without them.

    Raises:
        ModuleNotFoundError: Triton is not installed.
        ValueError: The dtype is not float32, or the device is not CUDA.
    """
    if not _installed():
        raise ModuleNotFoundError(f"{setting}: not installed. pip install triton, or use {instead!r}")
    if x.dtype != torch.float32 or x.device.type != _device_type():
        raise ValueError(
            f"{setting}: takes float32 on cuda, got {x.dtype} on {x.device}; use {instead!r}"
            " (for tests: with TRITON_INTERPRET=1 from the start it takes float32 on cpu instead, slowly)"
        )


def _device_type() -> str:
    import triton

    return "cpu" if triton.knobs.runtime.interpret else "cuda"


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None
