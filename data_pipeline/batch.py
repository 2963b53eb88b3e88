"""The batch of rows that a model receives."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

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

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device=device, non_blocking=non_blocking) for f in fields(self)}
        return Batch(**moved)

    def pin_memory(self) -> Batch:
        """Return a page-locked copy, with the number of ids of each column, which a device would be waited for."""
        self.ids.sync()
        return Batch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def record_stream(self, stream: torch.Stream) -> None:
        for f in fields(self):
            getattr(self, f.name).record_stream(stream)
