"""Reassembles complete groups from batches that split them."""

from __future__ import annotations

import torch


class WholeGroups:
    """Buffers rows, sorted by group, until all rows of a group have arrived.

    A group is complete when a later one starts, or at `flush`. Only the last, incomplete group is buffered. The output
    as a whole does not depend on the batch boundaries.
    """

    def __init__(self) -> None:
        self._held: list[tuple[torch.Tensor, ...]] = []
        self._last: int | None = None  # group of the last row
        self._open = False  # whether more rows of that group may arrive

    def push(self, groups: torch.Tensor, *columns: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
        """Add a batch.

        Args:
            groups: Groups int64 ``[B]``, sorted within and across batches.
            columns: Further columns of the rows, ``[B, ...]``.

        Returns:
            The rows of complete groups, as groups and columns; None if there are none.

        Raises:
            ValueError: A group follows a larger one, or was already returned by `flush`.
        """
        if len(groups) == 0:
            return None
        self._check_order(groups)
        batch = (groups, *columns)
        unfinished = int((groups != groups[-1]).sum())  # start of the batch's last group
        previous, self._last, self._open = self._last, int(groups[-1]), True
        if previous == self._last:
            self._held.append(batch)
            return None
        self._held.append(tuple(column[:unfinished] for column in batch))
        whole = self._take()
        self._held = [tuple(column[unfinished:] for column in batch)]
        return whole

    def flush(self) -> tuple[torch.Tensor, ...] | None:
        """Return the buffered group, or None. No more rows of it may arrive."""
        self._open = False
        return self._take()

    def _take(self) -> tuple[torch.Tensor, ...] | None:
        held, self._held = self._held, []
        if sum(len(groups) for groups, *_ in held) == 0:
            return None
        return tuple(torch.cat(parts) for parts in zip(*held, strict=True))

    def _check_order(self, groups: torch.Tensor) -> None:
        first = groups[:1] if self._last is None else groups.new_tensor([self._last])
        sequence = torch.cat([first, groups])
        falls = torch.nonzero(sequence[1:] < sequence[:-1])
        if len(falls):
            row = int(falls[0])
            raise ValueError(
                f"row {row} of the batch is of group {int(sequence[row + 1])}, after group {int(sequence[row])}:"
                " sort the rows by group (for ranking metrics, by user id)"
            )
        if not self._open and self._last == int(groups[0]):
            raise ValueError(f"rows of group {self._last} after it was flushed: flush once, when all rows have arrived")
