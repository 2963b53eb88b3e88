"""What models of lists have in common: all of them, and those of causal attention.

Shapes: ``B`` lists, ``T`` slots of a list, ``d`` embedding dimension, ``R`` rows of a batch's lists (`Buckets`).
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
    """Continues lists. The task scores items by their dot products with the hidden states that ``forward`` returns.

    A model is built from ``embedding_dim`` (``d``), ``max_input`` and ``max_target`` (the longest given part of a list
    and the longest to be continued), then keyword arguments of its own.

    Attributes:
        decoding: "autoregressive", item by item from left to right, or "parallel", all items at once.
        item_bias: whether the published model adds a bias of each item to its score, unless
            ``sequential.item_bias`` says otherwise.
        reads_masked_items: whether ``forward`` takes ``masked [B, T]``, and the model learns to restore masked items.
        reads_owner: whether ``forward`` takes ``owner [B, d]``, the embedding of the list's owner, or None.
    """

    task = "sequential"
    decoding: ClassVar[Literal["autoregressive", "parallel"]] = "autoregressive"
    item_bias: ClassVar[bool] = False
    reads_masked_items: ClassVar[bool] = False
    reads_owner: ClassVar[bool] = False


class CausalAttentionModel(SequentialModel):
    """The hidden state of a position scores the item after it, and is made of the items up to there.

    Items are scaled by sqrt(d) and learned positions added; blocks follow; the last one's output is normalized.

    Args:
        embedding_dim: ``d``.
        max_input: longest given part of a list.
        max_target: longest part to be continued.
        num_layers: blocks.
        num_heads: a divisor of ``d``.
        dropout: of the input, and in each block.
        attention_dropout: of attention weights; off unless asked for: slow on CPU.
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
        """A block of the architecture, which maps rows ``[R, d]`` and their `Buckets` to ``[R, d]``."""

    def hidden_states(self, items: torch.Tensor, buckets: Buckets, **context: Any) -> torch.Tensor:
        """Items ``[B, T, d]``, right-padded -> hidden ``[B, T, d]``, zeros at padding; every block gets ``context``."""
        rows = self.dropout(buckets.flatten(items) * self.scale + self.positions(buckets.positions, buckets.longest))
        for block in self.blocks:
            rows = block(rows, buckets, **context)
        return buckets.unflatten(self.norm(rows))
