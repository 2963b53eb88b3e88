"""The batch of rows that a model receives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class Batch(Pipelineable):
    """B rows.

    Attributes:
        ids: For every categorical column, in schema order, the embedding row of each id (the out-of-vocabulary row for
            unseen ids): one id per row, or a list per row for sequences. Its stride is the largest B of any rank in
            this step; rows past B have no ids. (Gloo has no backward of a row-wise look-up for unequal strides.)
        dense: float32 ``[B, D]``, standardized; ``D`` may be 0.
        labels: float32 ``[B]``, 0 or 1; ones where the data have no labels. Of T labels that are learned jointly,
            ``[B, T]``.
        users: int64 ``[B]``: encoded ids as stored, where unseen ids are distinct; for grouping and exporting. Of
            playlists, the playlist ids.
        items: int64 ``[B]``, in the same form; empty where rows are sequences.
        weight: float32 scalar ``B * world_size / (rows of this step over all ranks)``. A mean loss multiplied by it and
            averaged over ranks is the mean over the global batch, also where ranks have batches of different sizes.
        sample_weights: float32 ``[B]``, at least 0: weights of the rows; empty where the data have none.

    Example:
        >>> loader = build_loader(folder, schema, "train", batch_size=256)
        >>> batch = next(iter(loader))
        >>> batch.ids["item_id"].values().shape, batch.labels.shape
        (torch.Size([256]), torch.Size([256]))
    """

    ids: KeyedJaggedTensor
    dense: torch.Tensor
    labels: torch.Tensor
    users: torch.Tensor
    items: torch.Tensor
    weight: torch.Tensor
    sample_weights: torch.Tensor = field(default_factory=lambda: torch.empty(0, device="cpu"))
    _lengths: torch.Tensor | None = field(default=None, init=False, repr=False)  # of ids, on the host

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Memory of the tensors of the batch, in bytes."""
        tensors = (self.ids.values(), self.ids.lengths(), *(getattr(self, name) for name in self._on_device()[1:]))
        return sum(tensor.nbytes for tensor in tensors)

    def lengths_of(self, column: str) -> torch.Tensor:
        """Return the number of ids of each row in a column, int64 ``[B]``, on the host.

        A batch that was moved to a device keeps them, so that a model that lays out lists need not wait for the device.
        """
        if self._lengths is None:
            self._lengths = self.ids.lengths().cpu()
        return self._lengths.view(len(self.ids.keys()), -1)[self.ids.keys().index(column), : len(self)]

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        if device.type == self.labels.device.type == "cpu":  # a copy of `ids` alone would take a tenth of a small step
            return self
        return self._with(lambda value: value.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return a page-locked copy, with the number of ids of each column, which a device would be waited for."""
        self.ids.sync()
        return self._with(lambda value: value.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        for name in self._on_device():
            getattr(self, name).record_stream(stream)

    def _with(self, change: Callable[[Any], Any]) -> Batch:
        changed = Batch(**{name: change(getattr(self, name)) for name in self._on_device()})
        on_host = self._lengths is None and self.ids.device().type == "cpu"
        changed._lengths = self.ids.lengths() if on_host else self._lengths
        return changed

    def _on_device(self) -> list[str]:
        return [each.name for each in fields(self) if each.init]
