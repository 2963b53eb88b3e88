"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over the items of a sequence.

Shapes: ``B`` sequences, ``T`` slots of a sequence, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch

from cove_dist.models.layers.attention import TransformerBlock
from cove_dist.models.layers.buckets import buckets_of
from cove_dist.models.sequential.base import CausalAttentionModel


class SASRec(CausalAttentionModel):
    """The hidden state of a position scores the next item (section III of the paper).

    Learned positions are added to the items (III-A). A block is causal self-attention and a ReLU network of width d,
    both as ``x + dropout(f(norm(x)))`` (III-B, III-C). As in the authors' program, items are scaled by sqrt(d), heads
    are concatenated without a further projection, and the last block's output is normalized. Where that program departs
    from the paper (keys and values not normalized, the residual term normalized), this follows the paper.

    Arguments are those of `CausalAttentionModel`; dropout in a block applies to each branch. The authors also use
    dropout of attention weights.
    """

    @staticmethod
    def build_block(dim: int, num_heads: int, dropout: float, attention_dropout: float) -> TransformerBlock:
        return TransformerBlock(
            dim,
            num_heads,
            dim,
            activation="relu",
            norm="first",
            dropout=dropout,
            attention_dropout=attention_dropout,
            output_projection=False,
        )

    def forward(self, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map right-padded items ``[B, T, d]`` at ``mask [B, T]`` to hidden states ``[B, T, d]``, zeros at padding."""
        return self.hidden_states(items, buckets_of(mask), causal=True)
