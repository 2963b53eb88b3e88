"""Sums of gradients by table row, on CPU."""

from __future__ import annotations

import numpy as np
import torch

Rows = tuple[torch.Tensor, torch.Tensor]  # distinct sorted row ids of all tables [N]; gradients [N, d]

_ROWS_PER_ID = 16  # of a table, above which sorting the ids takes less time than a pass over a mark for every row


def distinct_rows(ids: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct ids in order, and the index among them of every id; the same as `torch.unique`.

    Args:
        ids: Row ids int64 ``[N]``, on CPU.
        rows: Number of rows of the table. A table of up to 16 rows per id is marked row by row, which for 12,000 ids of
            31,000 rows takes an eighth of the time of sorting the ids.

    Example:
        >>> distinct_rows(torch.tensor([7, 2, 7]), 10)
        (tensor([2, 7]), tensor([1, 0, 1]))
    """
    if rows > _ROWS_PER_ID * len(ids):
        return torch.unique(ids, return_inverse=True)
    numbers, marked, place = ids.numpy(), np.zeros(rows, bool), np.empty(rows, np.int64)
    marked[numbers] = True
    distinct = np.flatnonzero(marked)
    place[distinct] = np.arange(len(distinct))
    return torch.from_numpy(distinct), torch.from_numpy(place[numbers])


def sum_by_row(ids: torch.Tensor, gradients: torch.Tensor, rows: int) -> Rows:
    """Return the distinct ids, and the sums of their gradients.

    Args:
        ids, rows: As in `distinct_rows`.
        gradients: Gradients ``[N, d]``.
    """
    distinct, place = distinct_rows(ids, rows)
    return distinct, gradients.new_zeros(len(distinct), gradients.shape[1]).index_add_(0, place, gradients)
