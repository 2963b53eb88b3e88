"""A head per label on the same field embeddings.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns, ``T`` labels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from cove_dist.models.ctr.base import CTRHead


class JointHead(nn.Module):
    """Heads of one class, each for a label: they share the embeddings of ids, their codes and first-order weights.

    It is the shared-bottom model of multi-task learning (Caruana, Machine Learning 28, 1997): tables are the bottom.

    Args:
        heads: A head per label.
    """

    def __init__(self, heads: Iterable[CTRHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(each := list(heads))
        self.uses_first_order = each[0].uses_first_order
        self.attends_to_histories = each[0].attends_to_histories

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Map the inputs of `CTRHead` to logits ``[B, T]``."""
        return torch.stack([head(*inputs) for head in self.heads], dim=1)
