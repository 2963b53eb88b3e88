"""Learned embeddings of positions or segments of a sequence."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PositionalEmbedding(nn.Module):
    """One vector for each of ``max_length`` positions, initialized from N(0, 0.02²).

    Args:
        max_length: Number of positions.
        dim: Width ``d``.
    """

    def __init__(self, max_length: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_length, dim).normal_(std=0.02))

    def forward(self, positions: torch.Tensor, longest: int) -> torch.Tensor:
        """Map positions ``[R]``, from 0, to ``[R, d]``, without a device synchronization.

        Args:
            positions: Positions below ``longest``.
            longest: Length of the longest sequence.

        Raises:
            ValueError: A sequence is longer than ``max_length``.
        """
        if longest > len(self.weight):
            raise ValueError(
                f"a sequence has {longest} positions but the model has {len(self.weight)}: build it for longer"
                " sequences, or shorten the sequences"
            )
        return F.embedding(positions, self.weight)
