"""The encoder of BERT (Devlin et al., 2019), used by BERT4Rec and FANS.

Shapes: ``R`` rows of a batch's sequences (`Buckets`), ``d`` width.
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.layers.attention import TransformerBlock
from cove_dist.models.layers.buckets import Buckets
from cove_dist.models.layers.dropout import Dropout

INIT_STD = 0.02


class BertEncoder(nn.Module):
    """Normalized input, bidirectional blocks, and the transform before the output.

    The transform is BERT's: linear layer, GELU, normalization; scores are dot products of its output with items.

    Args:
        dim: Width ``d``; position-wise networks have ``4 d`` hidden units.
        num_layers: Number of blocks.
        num_heads: Number of heads, a divisor of ``d``.
        dropout: Dropout of the input and of each branch.
        attention_dropout: Dropout of attention weights.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim,
                num_heads,
                4 * dim,
                activation="gelu",
                norm="last",
                dropout=dropout,
                attention_dropout=attention_dropout,
            )
            for _ in range(num_layers)
        )
        self.transform = prediction_transform(dim)
        self.apply(start_as_bert)

    def forward(self, rows: torch.Tensor, buckets: Buckets) -> torch.Tensor:
        """Map items with positional embeddings ``[R, d]`` to hidden states ``[R, d]``."""
        rows = self.dropout(self.norm(rows))
        for block in self.blocks:
            rows = block(rows, buckets, causal=False)
        return self.transform(rows)


def prediction_transform(dim: int) -> nn.Sequential:
    """Build the transform ``[..., d] -> [..., d]``."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))


def start_as_bert(module: nn.Module) -> None:
    """Initialize linear layers from a normal distribution of std 0.02 truncated at two std, with zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        nn.init.zeros_(module.bias)


def special_vector(dim: int) -> nn.Parameter:
    """Create a learned embedding of a special token, such as [MASK]: ``[d]``."""
    return nn.Parameter(torch.empty(dim).normal_(std=INIT_STD))
