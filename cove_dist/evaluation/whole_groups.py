"""Whole groups out of batches that cut them."""

from __future__ import annotations

import torch


class WholeGroups:
    """Takes batches of rows sorted by group, and hands on rows of finished groups alone, in order.

    A group is finished when a later one begins, or at `flush`. Only the last, unfinished group is held. What comes out
    in all does not depend on where the batches cut.
    """

    def __init__(self) -> None:
        self._held: list[tuple[torch.Tensor, ...]] = []
        self._last: int | None = None  # the group of the last row seen
        self._open = False  # whether more rows of that group may come

    def push(self, groups: torch.Tensor, *columns: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
        """Take a batch.

        Args:
            groups: int64 ``[B]``, never falling, within a batch and from batch to batch.
            columns: ``[B, ...]``, what goes with the groups.

        Returns:
            The rows that are now whole: groups and columns, or None when there are none.

        Raises:
            ValueError: a group comes after a greater one, or after `flush` handed it on.
        """
        if len(groups) == 0:
            return None
        self._check_order(groups)
        batch = (groups, *columns)
        unfinished = int((groups != groups[-1]).sum())  # where the batch's last group begins
        previous, self._last, self._open = self._last, int(groups[-1]), True
        if previous == self._last:
            self._held.append(batch)
            return None
        self._held.append(tuple(column[:unfinished] for column in batch))
        whole = self._take()
        self._held = [tuple(column[unfinished:] for column in batch)]
        return whole

    def flush(self) -> tuple[torch.Tensor, ...] | None:
        """Hand on the group that is held, or None. No more rows of it may come."""
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
            raise ValueError(f"rows of group {self._last} after it was flushed: flush once, when all rows have come")
