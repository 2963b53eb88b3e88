"""BERT4Rec (Sun et al., CIKM 2019): masked items are predicted from both sides.

Shapes: ``B`` lists, ``T`` slots of a list, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch

from cove_dist.models.layers.bert import BertEncoder, special_vector
from cove_dist.models.layers.buckets import Buckets
from cove_dist.models.layers.positions import PositionalEmbedding
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.types import PositiveInt, Probability


class BERT4Rec(SequentialModel):
    """The hidden state of a masked position scores the item there (section 3 of the paper).

    Learned positions are added to the items (3.4); a block is attention and a GELU network of width 4d, each as
    ``norm(x + dropout(f(x)))`` (3.3); the output goes through a GELU layer (3.5, Eq. 7). From the authors' program come
    the normalization of the input and after that layer, and the first weights. Scores
    have a bias of each item (Eq. 7), which ``sequential.item_bias=false`` takes away.

    To continue a list (3.6), one masked position is appended and its item predicted; the answer takes its place.

    Args:
        embedding_dim: ``d``.
        max_input: longest given part of a list.
        max_target: longest part to be continued.
        num_layers: blocks.
        num_heads: a divisor of ``d``.
        dropout: of the input and of each branch.
        attention_dropout: of attention weights, which the authors drop too; off unless asked for: slow on CPU.
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
        """Hidden states of all positions; those of masked ones are of use.

        Args:
            items: ``[B, T, d]``, right-padded; what it holds at masked positions is not looked at.
            mask: ``[B, T]``, true at items and at masked positions.
            masked: ``[B, T]``, true where [MASK] stands in for an item.

        Returns:
            Hidden ``[B, T, d]``, zeros at padding.
        """
        buckets = Buckets(mask)
        rows = torch.where(buckets.flatten(masked).unsqueeze(1), self.mask_vector, buckets.flatten(items))
        return buckets.unflatten(self.encoder(rows + self.positions(buckets.positions, buckets.longest), buckets))
