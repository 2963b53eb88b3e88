"""GRU4Rec (Hidasi et al., ICLR 2016): gated recurrent units read a sequence item by item.

Shapes: ``B`` sequences, ``T`` slots of a sequence, ``d`` embedding dimension, ``h`` recurrent units.
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.layers.buckets import buckets_of
from cove_dist.models.layers.dropout import Dropout
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.types import PositiveInt, Probability

SEQUENCES_PER_BUCKET = 128  # a recurrent step is one product for all sequences of a bucket


class GRU4Rec(SequentialModel):
    """The hidden state of a position scores the next item (section 3.1 and Figure 1 of the paper).

    Item embeddings go through the GRU layers and one feed-forward layer, which maps ``h`` back to ``d``. The paper has
    separate output weights per item; here, as in the authors' later work (Hidasi and Karatzoglou, CIKM
    2018, "constrained embeddings"), they are the item embeddings.

    Args:
        embedding_dim: Embedding dimension ``d``.
        max_input: Length of the longest input; unused.
        max_target: Length of the longest target.
        num_layers: Number of GRU layers.
        hidden_dim: Number of recurrent units ``h``.
        dropout: Dropout of the items and after every GRU layer.
    """

    def __init__(
        self,
        embedding_dim: int,
        max_input: int,
        max_target: int,
        *,
        num_layers: PositiveInt = 3,
        hidden_dim: PositiveInt = 64,
        dropout: Probability = 0.2,
    ) -> None:
        super().__init__()
        widths = [embedding_dim] + [hidden_dim] * num_layers
        self.layers = nn.ModuleList(nn.GRU(w, hidden_dim, batch_first=True) for w in widths[:-1])
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_dim, embedding_dim)

    def forward(self, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map right-padded items ``[B, T, d]`` at ``mask [B, T]`` to hidden states ``[B, T, d]``, zeros at padding."""
        buckets = buckets_of(mask, SEQUENCES_PER_BUCKET)
        rows = self.dropout(buckets.flatten(items))
        for layer in self.layers:
            rows = self.dropout(buckets.join([layer(sequences)[0] for sequences in buckets.split(rows)]))
        return buckets.unflatten(self.output(rows))
