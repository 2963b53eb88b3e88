"""The transforms of dense columns as a torch module, for exported models.

Shapes: ``n`` rows, ``D`` dense columns, ``k`` quantile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from data_pipeline.dense import Dense


class DenseTransforms(nn.Module):
    """Transforms raw columns ``[n, D]`` as `data_pipeline.dense.Dense.apply` does, in float32.

    Standardization is in float64, as the mean may be large next to the deviation, such as of times.

    Args:
        columns: The columns, in order.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, columns: Sequence[Dense]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.register_buffer("mean", torch.tensor([column.mean for column in columns], dtype=torch.float64))
        self.register_buffer("std", torch.tensor([column.std for column in columns], dtype=torch.float64))
        for number, column in enumerate(columns):
            self.register_buffer(f"quantiles_{number}", torch.tensor(column.quantiles))

    def forward(self, dense: torch.Tensor) -> torch.Tensor:
        """Return the transformed and standardized columns ``[n, D]``."""
        moved = [self._transform(number, column, dense[:, number]) for number, column in enumerate(self.columns)]
        return ((torch.stack(moved, dim=1) - self.mean) / self.std).to(dense.dtype) if moved else dense

    def _transform(self, number: int, column: Dense, x: torch.Tensor) -> torch.Tensor:
        if column.fill is not None:
            x = torch.where(torch.isnan(x), torch.full_like(x, column.fill), x)
        if column.low is not None or column.high is not None:
            x = torch.clamp(x, column.low, column.high)
        if column.log == "log1p":
            return torch.log1p(x)
        if column.log == "signed":
            return torch.sign(x) * torch.log1p(torch.abs(x))
        return _rank(x, getattr(self, f"quantiles_{number}")) if column.quantiles else x


def _rank(x: torch.Tensor, quantiles: torch.Tensor) -> torch.Tensor:
    """Return the rank of ``x [n]`` among ``quantiles [k + 1]``: ramps of the intervals, half steps of empty ones."""
    low, high = quantiles[:-1], quantiles[1:]
    x = x.unsqueeze(1)
    empty = low == high
    ramps = torch.clamp((x - low) / torch.where(empty, torch.ones_like(low), high - low), 0.0, 1.0)
    steps = ((x > low).to(x.dtype) + (x >= low).to(x.dtype)) / 2
    rank = torch.where(empty, steps, ramps).mean(dim=1)
    below, above = x[:, 0] <= quantiles[0], x[:, 0] >= quantiles[-1]
    return torch.where(below, torch.zeros_like(rank), torch.where(above, torch.ones_like(rank), rank))
