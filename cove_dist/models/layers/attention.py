"""Multi-head attention within sequences, and the transformer block around it.

Shapes: ``R`` rows of a batch's sequences (`Buckets`), ``b`` sequences and ``t`` slots of one bucket, ``d`` width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from cove_dist.models.layers.buckets import Buckets
from cove_dist.models.layers.dropout import Dropout

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    buckets: Buckets,
    num_heads: int,
    causal: bool,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Apply scaled dot-product attention within each sequence.

    Args:
        queries: Queries ``[R, d]``.
        keys: Keys ``[R, d]``.
        values: Values ``[R, d]``.
        buckets: Layout of the sequences.
        num_heads: Number of heads, of ``d / num_heads`` components each.
        causal: Whether rows attend only to items up to their position.
        dropout: Dropout of attention weights; slower on CPU.

    Returns:
        The concatenated heads ``[R, d]``.
    """
    rows: tuple[torch.Tensor, ...] = (queries, keys, values)
    if queries.device.type == "cpu":  # where the backward pass in bfloat16 is several times slower
        rows = tuple(each.float() if each.dtype is torch.bfloat16 else each for each in rows)
    with torch.autocast("cpu", enabled=False):
        parts = zip(*(buckets.split(each) for each in rows), strict=True)
        heads = [
            _attend_in_bucket(part, mask, num_heads, causal, dropout)
            for part, mask in zip(parts, buckets.masks, strict=True)
        ]
    return buckets.join(heads)


def _attend_in_bucket(
    part: tuple[torch.Tensor, ...], mask: torch.Tensor | None, num_heads: int, causal: bool, dropout: float
) -> torch.Tensor:
    """Apply attention in one bucket: queries, keys and values ``[b, t, d]``, items at ``mask [b, t]``."""
    q, k, v = (rows.unflatten(2, (num_heads, -1)).transpose(1, 2) for rows in part)
    # padding is to the right of all items: under a causal mask no item attends to it
    seen = None if causal or mask is None else mask[:, None, None, :]
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout, is_causal=causal)
    return heads.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Self-attention: queries, keys and values are projections of the same rows.

    Args:
        dim: Width ``d``.
        num_heads: Number of heads, a divisor of ``d``.
        dropout: Dropout of attention weights.
        output_projection: Whether to apply a linear layer to the concatenated heads (``W^O`` of Vaswani et al., 2017).

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, output_projection: bool = True) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.dropout = dropout
        self.projection = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim) if output_projection else nn.Identity()

    def forward(self, rows: torch.Tensor, buckets: Buckets, causal: bool) -> torch.Tensor:
        """Map rows ``[R, d]`` to ``[R, d]``."""
        queries, keys, values = self.projection(rows).chunk(3, dim=1)
        dropout = self.dropout if self.training else 0.0
        return self.output(attend(queries, keys, values, buckets, self.num_heads, causal, dropout))


class TransformerBlock(nn.Module):
    """Self-attention, then a position-wise network of two layers, each in a residual branch with dropout.

    Args:
        dim: Width ``d``.
        num_heads: Number of heads, a divisor of ``d``.
        inner_dim: Width of the position-wise network's hidden layer.
        activation: Activation of that layer.
        norm: "first" normalizes the input of a branch, ``x + f(norm(x))``; "last" the sum, ``norm(x + f(x))``.
        dropout: Dropout of the output of a branch.
        attention_dropout: Dropout of attention weights.
        output_projection: As in `SelfAttention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        inner_dim: int,
        *,
        activation: Literal["relu", "gelu"],
        norm: Literal["first", "last"],
        dropout: float,
        attention_dropout: float,
        output_projection: bool = True,
    ) -> None:
        super().__init__()
        self.norm_first = norm == "first"
        self.attention = SelfAttention(dim, num_heads, attention_dropout, output_projection)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, inner_dim), ACTIVATIONS[activation](), nn.Linear(inner_dim, dim)
        )
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, rows: torch.Tensor, buckets: Buckets, causal: bool) -> torch.Tensor:
        """Map rows ``[R, d]`` to ``[R, d]``."""
        if self.norm_first:
            rows = rows + self.dropout(self.attention(self.attention_norm(rows), buckets, causal))
            return rows + self.dropout(self.feed_forward(self.feed_forward_norm(rows)))
        rows = self.attention_norm(rows + self.dropout(self.attention(rows, buckets, causal)))
        return self.feed_forward_norm(rows + self.dropout(self.feed_forward(rows)))


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless ``num_heads`` divides ``dim``."""
    if dim % num_heads:
        allowed = ", ".join(str(n) for n in range(1, dim + 1) if dim % n == 0)
        raise ValueError(f"num_heads = {num_heads}: must divide the embedding dimension {dim}; allowed: {allowed}")
