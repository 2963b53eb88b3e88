"""Checks of a quantizer's arguments and inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import torch


def check_arguments(
    dim: int,
    levels: Sequence[int],
    alpha: float,
    beta: float,
    ema_decay: float,
    init_std: float,
    falling: bool = True,
) -> None:
    """Raise `ValueError` for numbers out of range; ``falling``: numbers of codes must decrease by level."""
    if dim < 1:
        raise ValueError(f"dim = {dim}: must be at least 1")
    if not levels or min(levels) < 1:
        raise ValueError(f"levels = {list(levels)}: must be sizes of at least 1, such as (100, 10)")
    if falling and any(fine <= coarse for fine, coarse in pairwise(levels)):
        raise ValueError(
            f"levels = {list(levels)}: must be sizes of at least 1 that decrease strictly from fine to coarse, such as"
            " (100, 10)"
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value}: must be finite and not negative")
    if not 0 < ema_decay < 1:
        raise ValueError(f"ema_decay = {ema_decay}: must be between 0 and 1")
    if not 0 < init_std < math.inf:
        raise ValueError(f"init_std = {init_std}: must be finite and positive")


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise `ValueError` for a value that is not one of a `Literal`'s."""
    if value not in get_args(choices):
        raise ValueError(f"{name} = {value!r}: allowed: {', '.join(map(repr, get_args(choices)))}")


def check_input(z: torch.Tensor, dim: int, counts: torch.Tensor | None, **others: torch.Tensor | None) -> None:
    """Raise `ValueError` unless ``z`` is ``[..., dim]`` and other tensors have one integer or bool per vector."""
    if not z.is_floating_point() or z.dim() == 0 or z.shape[-1] != dim:
        raise ValueError(f"z is {z.dtype} {list(z.shape)}: must be floating point [..., {dim}]")
    for name, tensor in {"counts": counts, **others}.items():
        if tensor is not None and (tensor.shape != z.shape[:-1] or tensor.is_floating_point()):
            raise ValueError(
                f"{name} is {tensor.dtype} {list(tensor.shape)}: must be integers or bool, one per vector:"
                f" {list(z.shape[:-1])}"
            )
    if counts is not None and (counts < 0).any():
        raise ValueError(f"counts has {int(counts.min())}: must not be negative")
