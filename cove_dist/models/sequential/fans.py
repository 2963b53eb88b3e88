"""FANS (Liu et al., WWW 2023): all target items of a sequence at once.

Shapes: ``B`` sequences, ``T`` slots of the input, ``S`` slots of the target, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch

from cove_dist.models.layers.bert import BertEncoder, special_vector
from cove_dist.models.layers.buckets import buckets_of
from cove_dist.models.layers.positions import PositionalEmbedding
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.types import PositiveInt, Probability


class FANS(SequentialModel):
    """The hidden state of a target position scores its item; all positions are predicted in parallel.

    One BERT encoder reads ``[CLS] input items [SEP] targets [SEP]``, with segment vectors for the two halves; a target
    is its item if known and [MASK] otherwise. Training starts with most of the target known and hides a growing share
    from its end (the curriculum); the caller chooses the known part.

    The paper's abstract and Figure 2 show one encoder with masked targets, the two-stage classifier (here
    `TwoStageClassifier`) and the curriculum. The layout above, the inner width of 4d, 3 layers, 8 heads, and
    BERT's other defaults follow the authors' published program. Unlike that program, training does not also mask and
    predict 15 % of the input items. With ready-made categories, that program adds the category's vector to the item's;
    here the caller does.

    Args:
        embedding_dim: Embedding dimension ``d``.
        max_input: Length of the longest input.
        max_target: Length of the longest target.
        num_layers: Number of blocks.
        num_heads: Number of heads, a divisor of ``d``.
        dropout: Dropout of the input and of each branch.
        attention_dropout: Dropout of attention weights, as in BERT; off by default, as it is slow on CPU.
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
        """Return hidden states of all target positions.

        Args:
            items: Input items ``[B, T, d]``, right-padded.
            mask: Mask of input items ``[B, T]``.
            num_targets: Number of target positions ``S``.
            known: Items of target positions ``[B, S, d]``.
            known_mask: Mask of known target items ``[B, S]``; None: no item is known.
            target_mask: Mask of existing target positions ``[B, S]``, right-padded; None: all exist.

        Returns:
            Hidden states ``[B, S, d]``, zeros at padding.
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
        buckets = buckets_of(torch.cat([always, mask, always, target_mask, always], dim=1))
        first_target = num_items + 2
        segment = (torch.arange(tokens.shape[1], device=mask.device) >= first_target).long().expand(batch, -1)
        rows = buckets.flatten(tokens) + self.positions(buckets.positions, buckets.longest)
        rows = rows + self.segments(buckets.flatten(segment), 2)
        hidden = buckets.unflatten(self.encoder(rows, buckets))
        return hidden[:, first_target : first_target + num_targets]
