"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over the items of a list.

Shapes: ``B`` lists, ``T`` slots of a list, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.layers.attention import TransformerBlock
from cove_dist.models.layers.buckets import Buckets
from cove_dist.models.layers.dropout import Dropout
from cove_dist.models.layers.positions import PositionalEmbedding
from cove_dist.types import PositiveInt, Probability


class SASRec(nn.Module):
    """The hidden state of a position scores the item after it (section III of the paper).

    Learned positions are added to the items (III-A). A block is causal self-attention and a ReLU network of width d,
    both as ``x + dropout(f(norm(x)))`` (III-B, III-C). As in the authors' program, items are scaled by sqrt(d), heads
    are joined without a further projection, and the last block's output is normalized. Where that program departs from
    the paper (keys and values not normalized, the residual term normalized), this follows the paper.

    Args:
        embedding_dim: ``d``.
        max_input: longest given part of a list.
        max_target: longest part to be continued.
        num_layers: blocks.
        num_heads: a divisor of ``d``.
        dropout: of the input and of each branch.
        attention_dropout: of attention weights, which the authors drop too; off unless asked for: slow on CPU.
    """

    task = "lists"
    decoding = "autoregressive"

    def __init__(
        self,
        embedding_dim: int,
        max_input: int,
        max_target: int,
        *,
        num_layers: PositiveInt = 3,
        num_heads: PositiveInt = 8,
        dropout: Probability = 0.2,
        attention_dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.scale = embedding_dim**0.5
        self.positions = PositionalEmbedding(max_input + max_target, embedding_dim)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                embedding_dim,
                num_heads,
                embedding_dim,
                activation="relu",
                norm="first",
                dropout=dropout,
                attention_dropout=attention_dropout,
                output_projection=False,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Items ``[B, T, d]``, right-padded, true in ``mask [B, T]`` -> hidden ``[B, T, d]``, zeros at padding."""
        buckets = Buckets(mask)
        rows = self.dropout(buckets.flatten(items) * self.scale + self.positions(buckets.positions))
        for block in self.blocks:
            rows = block(rows, buckets, causal=True)
        return buckets.unflatten(self.norm(rows))
