"""Base classes of sequential models, and of those with causal attention.

Shapes: ``B`` sequences, ``T`` slots of a sequence, ``d`` embedding dimension, ``R`` rows of all buckets (`Buckets`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from cove_dist.models.base import Model
from cove_dist.models.layers.buckets import Buckets
from cove_dist.models.layers.dropout import Dropout
from cove_dist.models.layers.positions import PositionalEmbedding
from cove_dist.types import PositiveInt, Probability


class SequentialModel(Model, ABC):
    """Continues sequences. The task scores items by their dot products with the hidden states that ``forward`` returns.

    The constructor of a model takes ``embedding_dim`` (``d``), ``max_input`` and ``max_target`` (the lengths of the
    longest input and the longest target), and its keyword arguments.

    Attributes:
        decoding: "autoregressive", item by item from left to right, or "parallel", all items at once.
        item_bias: Whether the published model adds a bias of each item to its score, unless
            ``sequential.item_bias`` says otherwise.
        reads_masked_items: Whether ``forward`` takes ``masked [B, T]`` and training predicts masked items.
        reads_owner: Whether ``forward`` takes ``owner [B, d]``, the embedding of the sequence's owner, or None.
    """

    task = "sequential"
    decoding: ClassVar[Literal["autoregressive", "parallel"]] = "autoregressive"
    item_bias: ClassVar[bool] = False
    reads_masked_items: ClassVar[bool] = False
    reads_owner: ClassVar[bool] = False


class CausalAttentionModel(SequentialModel):
    """The hidden state of a position scores the next item, and depends only on the items up to that position.

    Items are scaled by sqrt(d) and learned positions added; blocks follow; the last one's output is normalized.

    Args:
        embedding_dim: Embedding dimension ``d``.
        max_input: Length of the longest input.
        max_target: Length of the longest target.
        num_layers: Number of blocks.
        num_heads: Number of heads, a divisor of ``d``.
        dropout: Dropout of the input and in each block.
        attention_dropout: Dropout of attention weights; off by default, as it is slow on CPU.
    """

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
            self.build_block(embedding_dim, num_heads, dropout, attention_dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)

    @staticmethod
    @abstractmethod
    def build_block(dim: int, num_heads: int, dropout: float, attention_dropout: float) -> nn.Module:
        """Build a block, which maps rows ``[R, d]`` and their `Buckets` to ``[R, d]``."""

    def hidden_states(self, items: torch.Tensor, buckets: Buckets, **context: Any) -> torch.Tensor:
        """Map right-padded items ``[B, T, d]`` to hidden states, zeros at padding; every block gets ``context``."""
        rows = self.dropout(buckets.flatten(items) * self.scale + self.positions(buckets.positions, buckets.longest))
        for block in self.blocks:
            rows = block(rows, buckets, **context)
        return buckets.unflatten(self.norm(rows))
