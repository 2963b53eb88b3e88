"""Padding of jagged sequence halves, vectorized over sequences.

The layout is computed on the host, which knows the lengths, and its indices are sent to the device of the values: the
shapes depend on the lengths, so a layout computed on the device would have the host wait for it.

Shapes: ``B`` sequences, ``n`` values of all sequences, ``T`` slots of a sequence.
"""

from __future__ import annotations

import torch


class Slots:
    """Maps jagged values to slots of padded sequences: value i goes to ``row[i], position[i]``.

    Args:
        row, position: Slot of each value, int64 ``[n]``, on the host.
        lengths: Lengths of the sequences, int64 ``[B]``, on the host; sequences are left-aligned.
    """

    def __init__(self, row: torch.Tensor, position: torch.Tensor, lengths: torch.Tensor) -> None:
        self.lengths = lengths
        width = max(1, int(lengths.max())) if len(lengths) else 1
        self.shape = (len(lengths), width)
        self._flat = row * width + position

    @classmethod
    def of(cls, lengths: torch.Tensor) -> Slots:
        """Build the slots of concatenated sequences of these lengths ``[B]``."""
        return cls(*_row_and_position(lengths, torch.zeros_like(lengths)), lengths)

    @classmethod
    def of_halves(cls, first: torch.Tensor, second: torch.Tensor) -> Slots:
        """Build the slots of the first halves of all sequences followed by all second halves."""
        halves = (_row_and_position(first, torch.zeros_like(first)), _row_and_position(second, first))
        rows, positions = (torch.cat(parts) for parts in zip(*halves, strict=True))
        return cls(rows, positions, first + second)

    @property
    def mask(self) -> torch.Tensor:
        """The occupied slots, bool ``[B, T]``, on the host."""
        return torch.arange(self.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def pad(self, values: torch.Tensor, fill: float = 0) -> torch.Tensor:
        """Pad values ``[n, …]``, on any device, to ``[B, T, …]``."""
        batch, width = self.shape
        padded = values.new_full((batch * width, *values.shape[1:]), fill)
        return padded.index_copy(0, sent(self._flat, values.device), values).unflatten(0, (batch, width))


def sent(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device, without waiting for the device."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def _row_and_position(lengths: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row and position of the values of sequences of these lengths, whose first value is at ``start``."""
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    begins = lengths.cumsum(0) - lengths
    positions = torch.arange(len(rows), device=lengths.device) - begins[rows] + start[rows]
    return rows, positions
