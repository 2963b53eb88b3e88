"""When the Triton kernels can be used. Triton itself is imported by the modules of the kernels, on first use."""

from __future__ import annotations

import functools
import importlib.util

import torch


def usable(x: torch.Tensor) -> bool:
    """Tell whether the kernels take a tensor: float32 on CUDA, with Triton installed."""
    return x.is_cuda and x.dtype == torch.float32 and _installed()


def require(x: torch.Tensor, setting: str, instead: str) -> None:
    """Refuse what the kernels cannot take.

    Args:
        x: the tensor in question. On CPU it is taken by Triton's interpreter, with ``TRITON_INTERPRET=1``.
        setting: what chose the kernels, such as ``search = 'triton'``.
        instead: the choice that works without them.

    Raises:
        ModuleNotFoundError: Triton is not installed.
        ValueError: another dtype than float32, or a device other than CUDA.
    """
    if not _installed():
        raise ModuleNotFoundError(f"{setting}: not installed. pip install triton, or use {instead!r}")
    import triton

    takes_device = x.device.type == ("cpu" if triton.knobs.runtime.interpret else "cuda")
    if x.dtype != torch.float32 or not takes_device:
        raise ValueError(
            f"{setting}: takes float32 on cuda, got {x.dtype} on {x.device}; use {instead!r}"
            " (for tests: with TRITON_INTERPRET=1 from the start it takes float32 on cpu instead, slowly)"
        )


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None
