"""From jagged halves of lists to padded ones. No loop over lists, and no padding before the model.

Shapes: ``B`` lists, ``n`` values of all lists, ``T`` slots of a list.
"""

from __future__ import annotations

import torch


class Slots:
    """Where jagged values stand in padded lists: ``row[i], place[i]`` of value i.

    Args:
        row, place: int64 ``[n]``.
        lengths: int64 ``[B]``, of the padded lists, whose places are all taken from the left.
    """

    def __init__(self, row: torch.Tensor, place: torch.Tensor, lengths: torch.Tensor) -> None:
        self.lengths = lengths
        width = max(1, int(lengths.max())) if len(lengths) else 1
        self.shape = (len(lengths), width)
        self._flat = row * width + place

    @classmethod
    def of(cls, lengths: torch.Tensor) -> Slots:
        """Of lists of these lengths ``[B]``, one after the other."""
        return cls(*_row_and_place(lengths, torch.zeros_like(lengths)), lengths)

    @classmethod
    def of_halves(cls, first: torch.Tensor, second: torch.Tensor) -> Slots:
        """Of the first halves of all lists, and then their second halves, which follow the first in their list."""
        halves = (_row_and_place(first, torch.zeros_like(first)), _row_and_place(second, first))
        rows, places = (torch.cat(parts) for parts in zip(*halves, strict=True))
        return cls(rows, places, first + second)

    @property
    def mask(self) -> torch.Tensor:
        """bool ``[B, T]``: true where a value stands."""
        return torch.arange(self.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def pad(self, values: torch.Tensor, fill: float = 0) -> torch.Tensor:
        """``[n, …] -> [B, T, …]``."""
        batch, width = self.shape
        padded = values.new_full((batch * width, *values.shape[1:]), fill)
        return padded.index_copy(0, self._flat, values).unflatten(0, (batch, width))


def _row_and_place(lengths: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the values of lists of these lengths, the first of each at place ``start``."""
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    begins = lengths.cumsum(0) - lengths
    places = torch.arange(len(rows), device=lengths.device) - begins[rows] + start[rows]
    return rows, places
