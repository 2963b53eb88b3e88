"""Learned vectors of the places, or of the segments, of a list."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PositionalEmbedding(nn.Module):
    """One vector for each of ``max_length`` places, started as N(0, 0.02²).

    Args:
        max_length: places there are.
        dim: ``d``.
    """

    def __init__(self, max_length: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_length, dim).normal_(std=0.02))

    def forward(self, positions: torch.Tensor, longest: int) -> torch.Tensor:
        """Places ``[R]``, from 0 -> ``[R, d]``. The host does not wait for the device.

        Args:
            positions: below ``longest``.
            longest: places of the longest list.

        Raises:
            ValueError: a list is longer than ``max_length``.
        """
        if longest > len(self.weight):
            raise ValueError(
                f"a list has {longest} places and the model {len(self.weight)}: raise the lengths it is built for, "
                "or shorten the lists"
            )
        return F.embedding(positions, self.weight)
