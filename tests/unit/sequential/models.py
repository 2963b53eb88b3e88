"""Small sequence models of each kind, to test what is around them."""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.sequential.base import SequentialModel
from cove_dist.types import PositiveInt


class Recurrent(SequentialModel):
    """Predicts the next item."""

    def __init__(self, embedding_dim: int, max_input: int, max_target: int, *, layers: PositiveInt = 1) -> None:
        super().__init__()
        self.gru = nn.GRU(embedding_dim, embedding_dim, layers, batch_first=True)

    def forward(self, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.gru(items)[0]


class OwnerAware(Recurrent):
    """And is told who made the list."""

    reads_owner = True

    def forward(self, items: torch.Tensor, mask: torch.Tensor, owner: torch.Tensor | None) -> torch.Tensor:
        hidden = self.gru(items)[0]
        return hidden if owner is None else hidden + owner[:, None]


class Masked(SequentialModel):
    """Predicts masked items from their neighbors."""

    reads_masked_items = True

    def __init__(self, embedding_dim: int, max_input: int, max_target: int) -> None:
        super().__init__()
        self.mask_vector = nn.Parameter(torch.randn(embedding_dim) * 0.1)
        self.gru = nn.GRU(embedding_dim, embedding_dim // 2, batch_first=True, bidirectional=True)

    def forward(self, items: torch.Tensor, mask: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        return self.gru(torch.where(masked[..., None], self.mask_vector, items))[0]


class Parallel(SequentialModel):
    """Predicts all targets from the mean of the input and of what is known of the target."""

    decoding = "parallel"

    def __init__(self, embedding_dim: int, max_input: int, max_target: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(max_target, embedding_dim) * 0.1)
        self.linear = nn.Linear(embedding_dim, embedding_dim)

    def forward(
        self,
        items: torch.Tensor,
        mask: torch.Tensor,
        num_targets: int,
        known: torch.Tensor | None = None,
        known_mask: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        total, count = (items * mask[..., None]).sum(dim=1), mask.sum(dim=1, keepdim=True)
        if known is not None:
            total = total + (known * known_mask[..., None]).sum(dim=1)
            count = count + known_mask.sum(dim=1, keepdim=True)
        return self.linear(total / count)[:, None] + self.positions[:num_targets]
