"""CAR (He, Zhang, Liu and Caverlee, WSDM 2020): consistency-aware continuation of user-generated sequences.

Shapes: ``B`` sequences, ``T`` slots of a sequence, ``d`` embedding dimension, ``R`` rows of all buckets (`Buckets`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from cove_dist.models.layers.attention import attend, check_heads
from cove_dist.models.layers.buckets import Buckets, buckets_of
from cove_dist.models.layers.dropout import Dropout
from cove_dist.models.sequential.base import CausalAttentionModel


class CAR(CausalAttentionModel):
    """The hidden state of a position scores the next item.

    A gate weighs the general preference (attention with one learned query), the current preference (attention with the
    latest item as query) and the latest item itself. Its inputs are a summary of the sequence so far and the distance
    of the latest item from the sequence's centre, its consistency.

    The abstract names these parts; the remaining details follow the authors' published program: values are
    not projected, attention has no residual term, each block adds the sequence's creator after the gate and normalizes
    before a ReLU network of width d, whose residual term is the normalized one. Items and creators are scaled by
    sqrt(d), the last block's output is normalized. The program's default is one block; ``num_layers`` stacks it
    unchanged. Its penalty on the learned queries and its pairwise loss are not part of the model.

    If the data have no creators (``owner=None``), nothing is added: the model has less information than in the paper.

    Arguments are those of `CausalAttentionModel`; dropout in a block applies to the gate's inputs, the creator and the
    ReLU network. The authors also use dropout of attention weights.
    """

    reads_owner = True

    @staticmethod
    def build_block(dim: int, num_heads: int, dropout: float, attention_dropout: float) -> CARBlock:
        return CARBlock(dim, num_heads, dropout, attention_dropout)

    def forward(self, items: torch.Tensor, mask: torch.Tensor, owner: torch.Tensor | None = None) -> torch.Tensor:
        """Return hidden states.

        Args:
            items: Items ``[B, T, d]``, right-padded.
            mask: Mask of items ``[B, T]``.
            owner: Embeddings of the sequences' creators ``[B, d]``, or None.

        Returns:
            Hidden states ``[B, T, d]``, zeros at padding.
        """
        buckets = buckets_of(mask)
        creator = None if owner is None else (owner * self.scale).index_select(0, buckets.sequences)
        return self.hidden_states(items, buckets, creator=creator)


class CARBlock(nn.Module):
    """Two preferences, the gate over them, and a position-wise network.

    Args:
        dim: Width ``d``.
        num_heads: Number of heads, a divisor of ``d``.
        dropout: Dropout of the gate's inputs, of the creator and in the network.
        attention_dropout: Dropout of attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.norm = nn.LayerNorm(dim)
        self.current_query = nn.Linear(dim, dim)
        self.keys = nn.Linear(dim, 3 * dim)  # of the current preference, the general one, and the gate's summary
        bound = (3 / dim) ** 0.5  # of Glorot's uniform distribution
        self.general_query = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        self.summary_query = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        self.gate = nn.Linear(2 * dim, 3)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), Dropout(dropout), nn.Linear(dim, dim), Dropout(dropout)
        )
        self.dropout = Dropout(dropout)

    def forward(self, rows: torch.Tensor, buckets: Buckets, creator: torch.Tensor | None) -> torch.Tensor:
        """Map items and their creators ``[R, d]`` to ``[R, d]``."""
        latest = self.norm(rows)
        keys = self.keys(rows).chunk(3, dim=1)
        queries = (self.current_query(latest), self.general_query.expand_as(rows), self.summary_query.expand_as(rows))
        dropout = self.attention_dropout if self.training else 0.0
        current, general, summary = (
            attend(query, key, rows, buckets, self.num_heads, True, dropout)
            for query, key in zip(queries, keys, strict=True)
        )
        consistency = (rows - running_mean(rows, buckets)).abs()
        gate = F.softmax(self.gate(self.dropout(torch.cat([summary, consistency], dim=1))), dim=1)
        rows = current * gate[:, :1] + general * gate[:, 1:2] + latest * gate[:, 2:]
        if creator is not None:
            rows = rows + self.dropout(creator)
        rows = self.feed_forward_norm(rows)
        return rows + self.feed_forward(rows)


def running_mean(rows: torch.Tensor, buckets: Buckets) -> torch.Tensor:
    """Return the mean of each sequence's items up to each row: ``[R, d] -> [R, d]``."""
    sums = buckets.join([sequences.cumsum(dim=1) for sequences in buckets.split(rows)])
    return sums / (buckets.positions + 1).unsqueeze(1)
