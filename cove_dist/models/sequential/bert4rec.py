"""BERT4Rec (Sun et al., CIKM 2019): masked items are predicted from both sides.

Shapes: ``B`` sequences, ``T`` slots of a sequence, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch

from cove_dist.models.layers.bert import BertEncoder, special_vector
from cove_dist.models.layers.buckets import buckets_of
from cove_dist.models.layers.positions import PositionalEmbedding
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.types import PositiveInt, Probability


class BERT4Rec(SequentialModel):
    """The hidden state of a masked position scores the item there (section 3 of the paper).

    Learned positions are added to the items (3.4); a block is attention and a GELU network of width 4d, each as
    ``norm(x + dropout(f(x)))`` (3.3); the output goes through a GELU layer (3.5, Eq. 7). The normalization of the input
    and after that layer, and the initialization, follow the authors' program. Scores have a bias per item (Eq. 7),
    which ``sequential.item_bias=false`` removes.

    To continue a sequence (3.6), a masked position is appended and replaced by the predicted item.

    Args:
        embedding_dim: Embedding dimension ``d``.
        max_input: Length of the longest input.
        max_target: Length of the longest target.
        num_layers: Number of blocks.
        num_heads: Number of heads, a divisor of ``d``.
        dropout: Dropout of the input and of each branch.
        attention_dropout: Dropout of attention weights, as in the authors' program; off by default: slow on CPU.
    """

    item_bias = True
    reads_masked_items = True

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
        self.mask_vector = special_vector(embedding_dim)
        self.positions = PositionalEmbedding(max_input + max_target, embedding_dim)
        self.encoder = BertEncoder(embedding_dim, num_layers, num_heads, dropout, attention_dropout)

    def forward(self, items: torch.Tensor, mask: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Return hidden states of all positions; only those of masked positions are meaningful.

        Args:
            items: Items ``[B, T, d]``, right-padded; values at masked positions are ignored.
            mask: Mask ``[B, T]``, true at items and at masked positions.
            masked: Mask ``[B, T]``, true where [MASK] replaces an item.

        Returns:
            Hidden states ``[B, T, d]``, zeros at padding.
        """
        buckets = buckets_of(mask)
        rows = torch.where(buckets.flatten(masked).unsqueeze(1), self.mask_vector, buckets.flatten(items))
        return buckets.unflatten(self.encoder(rows + self.positions(buckets.positions, buckets.longest), buckets))
