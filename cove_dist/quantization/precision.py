"""Keeps statistics in at least float32 in a module of lower precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Convert = Callable[[torch.Tensor], torch.Tensor]


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the floating-point type, or float32 if it is less precise."""
    return torch.promote_types(dtype, torch.float32)


def keep_precision(convert: Convert) -> Convert:
    """Wrap the conversion of ``Module.to``, ``half`` or ``bfloat16`` so that tensors keep at least float32."""

    def converted(tensor: torch.Tensor) -> torch.Tensor:
        moved = convert(tensor)
        if not moved.is_floating_point() or moved.dtype == at_least_float32(moved.dtype):
            return moved
        return tensor.to(moved.device, at_least_float32(moved.dtype))

    return converted


def load_precise(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Convert a state dict to at least float32 before loading; see `Module.register_load_state_dict_pre_hook`."""
    for name, value in state.items():
        if name.startswith(prefix) and value.is_floating_point():
            state[name] = value.to(at_least_float32(value.dtype))
