"""Lists of unequal length with little padding: sorted by length and cut into buckets of similar lists.

Lists are much shorter than the longest (12.5 items on average under a limit of 60 in Art of the Mix), so that most of a
padded batch is padding. Progress-wise layers run on the rows of all buckets at once, ``[R, d]``; attention runs bucket
by bucket on ``[b, t, d]``, a view of the bucket's rows, where ``t`` is the longest list of that bucket alone.

Shapes: ``B`` lists, ``T`` slots of a list, ``d`` width, ``R`` rows of all buckets, ``b`` lists and ``t`` slots of one.
"""

from __future__ import annotations

import torch


class Buckets:
    """The layout of one batch.

    Args:
        mask: ``[B, T]``, true at items, which may lie anywhere: within its bucket a list has no holes.
        lists_per_bucket: fewer mean less padding and more calls.

    Attributes:
        longest: places of the longest list, at least 1.
        shapes: ``(b, t)`` of every bucket; its ``b * t`` rows follow those of the bucket before.
        masks: ``[b, t]`` of every bucket, true at items; None where the bucket has no padding.
        positions: ``[R]``, the place of a row in its list, from 0.
        lists: ``[R]``, which list of the batch a row belongs to.
    """

    def __init__(self, mask: torch.Tensor, lists_per_bucket: int = 32) -> None:
        self._batch_shape = mask.shape
        slots = torch.argsort(~mask, dim=1, stable=True)  # of a list's items, then of its padding
        lengths, order = torch.sort(mask.sum(dim=1), stable=True)
        self.shapes: list[tuple[int, int]] = []
        self.masks: list[torch.Tensor | None] = []
        lists, places, positions = [], [], []
        on_host = lengths.tolist()  # the only wait for the device
        buckets = zip(order.split(lists_per_bucket), lengths.split(lists_per_bucket), strict=True)
        for start, (chosen, its_lengths) in zip(range(0, len(on_host), lists_per_bucket), buckets, strict=True):
            # A list without items keeps one row, so that no bucket is empty.
            shortest, longest = on_host[start], max(on_host[start + len(chosen) - 1], 1)
            shape = (len(chosen), longest)
            position = torch.arange(longest, device=mask.device).expand(shape)
            self.shapes.append(shape)
            self.masks.append(None if shortest == longest else position < its_lengths.unsqueeze(1))
            lists.append(chosen.unsqueeze(1).expand(shape).flatten())
            places.append(slots[chosen, :longest].flatten())
            positions.append(position.flatten())
        self.longest = max(longest for _, longest in self.shapes)
        self.positions = torch.cat(positions)
        self.lists = torch.cat(lists)
        self._sources = self.lists * mask.shape[1] + torch.cat(places)  # of every row, in the flattened batch
        self._is_item = mask.flatten()[self._sources]

    def flatten(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, T, ...]`` -> ``[R, ...]``; rows of padding hold what ``x`` has at some padded place."""
        return x.flatten(0, 1).index_select(0, self._sources)

    def split(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """``[R, d]`` -> ``[b, t, d]`` of every bucket, views of the rows."""
        parts = rows.split([b * t for b, t in self.shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """``[b, t, d]`` of every bucket -> ``[R, d]``."""
        return torch.cat([part.flatten(0, 1) for part in parts])

    def unflatten(self, rows: torch.Tensor) -> torch.Tensor:
        """``[R, d]`` -> ``[B, T, d]``, zeros at padding."""
        if any(mask is not None for mask in self.masks):
            rows = rows.masked_fill(~self._is_item.unsqueeze(1), 0)
        batch = rows.new_zeros(self._batch_shape.numel(), rows.shape[1])
        return batch.index_copy(0, self._sources, rows).unflatten(0, self._batch_shape)
