"""Tables for serving: final vectors of all ids in float32, bfloat16 or int8, looked up without TorchRec.

Shapes: ``n`` rows, ``d`` embedding dimension.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

Precision = Literal["float32", "bfloat16", "int8"]

_LARGEST = 127  # of int8, symmetric


class StoredRows(NamedTuple):
    """Rows as they are stored.

    Attributes:
        values: ``[n, d]`` in the precision of the table.
        scale: float32 ``[n, 1]`` for int8, by which a row's values are multiplied; otherwise None.
    """

    values: torch.Tensor
    scale: torch.Tensor | None

    @classmethod
    def of(cls, rows: torch.Tensor, precision: Precision) -> StoredRows:
        """Round float32 rows ``[n, d]``.

        int8 is symmetric with one scale per row, ``max |x| / 127``, so that a component is off by at most half a scale.

        Example:
            >>> stored = StoredRows.of(torch.tensor([[0.5, -1.27, 0.004]]), "int8")
            >>> stored.values.tolist(), round(stored.scale.item(), 4)
            ([[50, -127, 0]], 0.01)
        """
        if precision != "int8":
            return cls(rows.to(getattr(torch, precision)), None)
        scale = rows.abs().amax(dim=1, keepdim=True).float() / _LARGEST
        steps = rows / scale.where(scale > 0, 1)
        return cls(steps.round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scale)

    def restored(self) -> torch.Tensor:
        """Return the rows as float32 ``[n, d]``."""
        return self.values.float() if self.scale is None else self.values.float() * self.scale


class ServingTable(nn.Module):
    """A table of final vectors, whose look-ups are float32.

    Args:
        rows: Final vectors, float32 ``[n, d]``.
        precision: Precision in which they are stored.

    Example:
        >>> table = ServingTable(torch.eye(4), "int8")
        >>> table(torch.tensor([[2]])).tolist(), table.values.dtype
        ([[[0.0, 0.0, 1.0, 0.0]]], torch.int8)
    """

    values: torch.Tensor
    scale: torch.Tensor | None

    def __init__(self, rows: torch.Tensor, precision: Precision = "float32") -> None:
        super().__init__()
        stored = StoredRows.of(rows.detach(), precision)
        self.register_buffer("values", stored.values.clone())
        self.register_buffer("scale", stored.scale)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map ids int64 ``[...]`` to float32 ``[..., d]``."""
        rows = F.embedding(ids, self.values).float()
        return rows if self.scale is None else rows * F.embedding(ids, self.scale)

    def first(self, count: int) -> torch.Tensor:
        """Return the first rows as float32 ``[count, d]``."""
        return StoredRows(self.values[:count], None if self.scale is None else self.scale[:count]).restored()
