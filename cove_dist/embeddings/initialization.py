"""Random initialization that depends only on (seed, table, row, column), not on the sharding plan or world size.

Each number is hashed from its position, so a rank fills only its rows and any number of ranks starts from the same
tables.
"""

from __future__ import annotations

import math
import zlib

import torch

_CHUNK_CPU, _CHUNK_ACCELERATOR = 1 << 18, 1 << 22  # numbers at a time; a chunk takes about 50 bytes a number


def _wrap(constant: int) -> int:
    """Return a 64-bit constant as a signed integer."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GAMMA, _MIX_1, _MIX_2 = (_wrap(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@torch.no_grad()
def fill_normal_(
    shard: torch.Tensor, *, std: float, seed: int, table: str, row_offset: int, column_offset: int
) -> None:
    """Fill ``shard [rows, columns]`` with ``N(0, std²)``.

    Args:
        shard: Part of a table on this rank.
        std: Standard deviation.
        seed: Seed of the run.
        table: Name of the table; tables of one run differ.
        row_offset, column_offset: Offset of the shard in the whole table.
    """
    stream = _mix(torch.tensor(zlib.crc32(table.encode()) + (seed << 32), dtype=torch.int64, device=shard.device))
    columns = torch.arange(column_offset, column_offset + shard.shape[1], dtype=torch.int64, device=shard.device)
    numbers = _CHUNK_CPU if shard.device.type == "cpu" else _CHUNK_ACCELERATOR
    step = max(1, numbers // max(1, shard.shape[1]))
    for start in range(0, shard.shape[0], step):
        part = shard[start : start + step]
        rows = torch.arange(start, start + len(part), dtype=torch.int64, device=shard.device) + row_offset
        position = (rows[:, None] << 20) + columns  # at most 2**20 columns
        part.copy_(_normal(_mix(position * _GAMMA + stream)) * std)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Apply the finalizer of SplitMix64 (Steele, Lea and Flood, 2014) to int64."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right logically; torch's operator is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _normal(bits: torch.Tensor) -> torch.Tensor:
    """Apply the Box-Muller transform to the two halves of 64 random bits."""
    first = (_shift(bits, 32).double() + 1) / 2**32
    second = (bits & 0xFFFFFFFF).double() / 2**32
    return torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * math.pi * second)
