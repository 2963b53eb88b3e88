"""FANS (Liu et al., WWW 2023): all items of a list's continuation at once.

Shapes: ``B`` lists, ``T`` slots of the given part, ``S`` slots of the part to be continued, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch

from cove_dist.models.layers.bert import BertEncoder, special_vector
from cove_dist.models.layers.buckets import Buckets
from cove_dist.models.layers.positions import PositionalEmbedding
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.types import PositiveInt, Probability


class FANS(SequentialModel):
    """The hidden state of a target position scores the item there; no position waits for another.

    One BERT encoder reads ``[CLS] given items [SEP] targets [SEP]``, with segment vectors for the two halves; a target
    is its item where that is known already and [MASK] elsewhere. Training starts with most of the target known and
    hides a growing share from its end (the curriculum); what is known is the caller's choice.

    The paper's abstract and Figure 2 show one encoder with masked targets, the two-stage classifier (here
    `TwoStageClassifier`) and the curriculum. The layout above is that of the authors' published program, as are the
    inner width of 4d, 3 layers and 8 heads, and BERT's defaults beyond them. Left out is that in training it masks 15 %
    of the given items as well and learns to restore them. With ready-made categories, that program adds the category's
    vector to the item's; here the caller does.

    Args:
        embedding_dim: ``d``.
        max_input: longest given part of a list.
        max_target: longest part to be continued.
        num_layers: blocks.
        num_heads: a divisor of ``d``.
        dropout: of the input and of each branch.
        attention_dropout: of attention weights, which BERT drops too; off unless asked for: slow on CPU.
    """

    decoding = "parallel"

    def __init__(
        self,
        embedding_dim: int,
        max_input: int,
        max_target: int,
        *,
        num_layers: PositiveInt = 3,
        num_heads: PositiveInt = 8,
        dropout: Probability = 0.1,
        attention_dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.mask_vector = special_vector(embedding_dim)
        self.start_vector = special_vector(embedding_dim)
        self.separator_vector = special_vector(embedding_dim)
        self.segments = PositionalEmbedding(2, embedding_dim)
        self.positions = PositionalEmbedding(max_input + max_target + 3, embedding_dim)
        self.encoder = BertEncoder(embedding_dim, num_layers, num_heads, dropout, attention_dropout)

    def forward(
        self,
        items: torch.Tensor,
        mask: torch.Tensor,
        num_targets: int,
        known: torch.Tensor | None = None,
        known_mask: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states of all target positions.

        Args:
            items: ``[B, T, d]``, right-padded.
            mask: ``[B, T]``, true at items.
            num_targets: ``S``.
            known: ``[B, S, d]``, the items of target positions.
            known_mask: ``[B, S]``, true where such an item may be seen; None hides all of them.
            target_mask: ``[B, S]``, true at positions a list has, right-padded; None where all lists have ``S``.

        Returns:
            Hidden ``[B, S, d]``, zeros at padding.
        """
        batch, num_items, _ = items.shape
        targets = self.mask_vector.expand(batch, num_targets, -1)
        if known is not None and known_mask is not None:
            targets = torch.where(known_mask.unsqueeze(2), known, targets)
        if target_mask is None:
            target_mask = mask.new_ones(batch, num_targets)
        one, always = (batch, 1, items.shape[2]), mask.new_ones(batch, 1)
        start, separator = self.start_vector.expand(one), self.separator_vector.expand(one)
        tokens = torch.cat([start, items, separator, targets, separator], dim=1)
        buckets = Buckets(torch.cat([always, mask, always, target_mask, always], dim=1))
        first_target = num_items + 2
        segment = (torch.arange(tokens.shape[1], device=mask.device) >= first_target).long().expand(batch, -1)
        rows = buckets.flatten(tokens) + self.positions(buckets.positions, buckets.longest)
        rows = rows + self.segments(buckets.flatten(segment), 2)
        hidden = buckets.unflatten(self.encoder(rows, buckets))
        return hidden[:, first_target : first_target + num_targets]
