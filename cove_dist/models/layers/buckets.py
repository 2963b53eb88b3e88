"""Sequences of unequal length with little padding: sorted by length and split into buckets of similar lengths.

Most sequences are much shorter than the longest (12.5 items on average with a limit of 60 in Art of the Mix), so most
of a padded batch is padding. Position-wise layers run on the rows of all buckets at once, ``[R, d]``; attention runs
bucket by bucket on ``[b, t, d]``, a view of the bucket's rows, where ``t`` is the longest sequence of that bucket.

Shapes: ``B`` sequences, ``T`` slots of a sequence, ``d`` width, ``R`` rows of all buckets, ``b`` sequences and ``t``
slots of one bucket.
"""

from __future__ import annotations

import torch


def buckets_of(mask: torch.Tensor, sequences_per_bucket: int = 32) -> Buckets:
    """Return the layout of a batch.

    On an accelerator, where the lengths would have the host wait for the device, and under `torch.export`, whose shapes
    must not depend on values, it is one padded bucket.
    """
    on_host = mask.device.type == "cpu" and not torch.compiler.is_exporting()
    return Buckets(mask, sequences_per_bucket) if on_host else OneBucket(mask)


class Buckets:
    """The layout of one batch.

    Args:
        mask: Mask of items ``[B, T]``, at any slots; within its bucket a sequence has no gaps.
        sequences_per_bucket: Number of sequences per bucket; fewer mean less padding and more calls.

    Attributes:
        longest: Length of the longest sequence, at least 1.
        shapes: Shape ``(b, t)`` of every bucket, whose ``b * t`` rows follow those of the previous bucket.
        masks: Mask of items ``[b, t]`` of every bucket; None for buckets without padding.
        positions: Position of each row in its sequence, from 0, ``[R]``.
        sequences: Index of each row's sequence in the batch, ``[R]``.
    """

    def __init__(self, mask: torch.Tensor, sequences_per_bucket: int = 32) -> None:
        self._batch_shape = mask.shape
        slots = torch.argsort(~mask, dim=1, stable=True)  # of a sequence's items, then of its padding
        lengths, order = torch.sort(mask.sum(dim=1), stable=True)
        self.shapes: list[tuple[int, int]] = []
        self.masks: list[torch.Tensor | None] = []
        sequences, places, positions = [], [], []
        on_host = lengths.tolist()
        buckets = zip(order.split(sequences_per_bucket), lengths.split(sequences_per_bucket), strict=True)
        for start, (chosen, its_lengths) in zip(range(0, len(on_host), sequences_per_bucket), buckets, strict=True):
            # An empty sequence keeps one row, so that no bucket is empty.
            shortest, longest = on_host[start], max(on_host[start + len(chosen) - 1], 1)
            shape = (len(chosen), longest)
            position = torch.arange(longest, device=mask.device).expand(shape)
            self.shapes.append(shape)
            self.masks.append(None if shortest == longest else position < its_lengths.unsqueeze(1))
            sequences.append(chosen.unsqueeze(1).expand(shape).flatten())
            places.append(slots[chosen, :longest].flatten())
            positions.append(position.flatten())
        self.longest = max(longest for _, longest in self.shapes)
        self.positions = torch.cat(positions)
        self.sequences = torch.cat(sequences)
        self._sources = self.sequences * mask.shape[1] + torch.cat(places)  # of every row, in the flattened batch
        self._is_item = mask.flatten()[self._sources]

    def flatten(self, x: torch.Tensor) -> torch.Tensor:
        """Flatten ``[B, T, ...]`` to ``[R, ...]``; rows of padding have the value of ``x`` at some padded slot."""
        return x.flatten(0, 1).index_select(0, self._sources)

    def split(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Split rows ``[R, d]`` into views ``[b, t, d]`` of every bucket."""
        parts = rows.split([b * t for b, t in self.shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Concatenate ``[b, t, d]`` of every bucket to rows ``[R, d]``."""
        return torch.cat([part.flatten(0, 1) for part in parts])

    def unflatten(self, rows: torch.Tensor) -> torch.Tensor:
        """Unflatten rows ``[R, d]`` to ``[B, T, d]``, with zeros at padding."""
        if any(mask is not None for mask in self.masks):
            rows = rows.masked_fill(~self._is_item.unsqueeze(1), 0)
        batch = rows.new_zeros(self._batch_shape.numel(), rows.shape[1])
        return batch.index_copy(0, self._sources, rows).unflatten(0, self._batch_shape)


class OneBucket(Buckets):
    """The batch as it is: one bucket of ``B * T`` rows in order, whose shape depends on no value.

    Args:
        mask: Mask of items ``[B, T]``. Causal models need right-padded sequences; others ignore slots of padding.
    """

    def __init__(self, mask: torch.Tensor) -> None:
        batch, slots = mask.shape
        self._mask = mask
        self.shapes, self.masks, self.longest = [(batch, slots)], [mask], slots
        self.positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0).flatten()
        self.sequences = torch.arange(batch, device=mask.device).unsqueeze(1).expand(batch, slots).flatten()

    def flatten(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(0, 1)

    def split(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return [rows.unflatten(0, self.shapes[0])]

    def unflatten(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(0, self.shapes[0]).masked_fill(~self._mask.unsqueeze(2), 0)
