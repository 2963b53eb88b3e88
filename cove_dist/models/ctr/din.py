"""Deep Interest Network (Zhou et al., KDD 2018): attention of the candidate item over the user's interaction history.

Shapes: ``B`` batch, ``F`` fields, ``d`` embedding dimension, ``D`` dense columns, ``S`` histories, ``T`` entries of the
longest one.
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.layers.mlp import MLP
from cove_dist.types import LayerSizes, Probability


class DIN(CTRHead):
    """``logit = MLP(fields, dense, Σ_j a(v_j, item) v_j of every history)`` (Eq. 3 of the paper).

    Weights are not normalized, so that their sum is the intensity of the interest (section 4.3). With several histories
    the activation unit is shared. The MLP has ReLU, as in the other heads, and the activation unit PReLU: the paper's
    Dice reads the statistics of a batch, and results would depend on its size and on the number of ranks.

    Args:
        num_fields: Number of fields and histories ``F + S``.
        embedding_dim: Embedding dimension ``d``.
        num_dense: Number of dense columns ``D``.
        attention_units: Sizes of the hidden layers of the activation unit.
        softmax: Whether weights are normalized over the entries of a history.
        hidden_units: Sizes of the MLP's hidden layers.
        dropout: Dropout after every hidden layer of the MLP.
    """

    attends_to_histories = True

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        *,
        attention_units: LayerSizes = (36,),
        softmax: bool = False,
        hidden_units: LayerSizes = (1000, 1000, 1000),
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        self.attention = TargetAttention(embedding_dim, attention_units, softmax)
        self.mlp = MLP(num_fields * embedding_dim + num_dense, hidden_units, dropout)
        self.output = nn.Linear(self.mlp.out_dim, 1)

    def forward(
        self,
        fields: torch.Tensor,
        dense: torch.Tensor,
        item: torch.Tensor,
        entries: torch.Tensor,
        present: torch.Tensor,
    ) -> torch.Tensor:
        """Score a batch.

        Args:
            fields: Field embeddings ``[B, F, d]``, with that of the item.
            dense: Standardized dense columns ``[B, D]``.
            item: Embedding of the candidate ``[B, d]``.
            entries: Embeddings of the histories' items ``[B, S, T, d]``.
            present: Which entries exist, bool ``[B, S, T]``.

        Returns:
            Logits ``[B]``.
        """
        interests = self.attention(item, entries, present)
        return self.output(self.mlp(torch.cat([fields.flatten(1), interests.flatten(1), dense], dim=1))).squeeze(1)


class TargetAttention(nn.Module):
    """``Σ_j a(q, k_j) k_j``, where a is a feed-forward network on ``[q, k, q - k, q * k]``, the activation unit.

    Args:
        dim: Embedding dimension ``d``.
        units: Sizes of the hidden layers, with PReLU.
        softmax: Whether weights are normalized.
    """

    def __init__(self, dim: int, units: LayerSizes, softmax: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, out in zip((4 * dim, *units), units, strict=False):
            layers += [nn.Linear(width, out), nn.PReLU(out)]
        self.unit = nn.Sequential(*layers, nn.Linear(units[-1], 1))
        self.softmax = softmax

    def forward(self, query: torch.Tensor, keys: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Map ``query [B, d]``, ``keys [B, S, T, d]``, ``present [B, S, T]`` to ``[B, S, d]``; zeros without keys."""
        queries = query[:, None, None].expand_as(keys)
        inputs = torch.cat([queries, keys, queries - keys, queries * keys], dim=3)
        rows = inputs.flatten(0, 2)  # PReLU takes the units from the second dimension
        weights = self.unit(rows).view(present.shape)
        if self.softmax:
            lowest = torch.finfo(weights.dtype).min
            weights = torch.softmax(weights.masked_fill(~present, lowest), dim=2)
        weights = weights.masked_fill(~present, 0.0)
        return (weights.unsqueeze(3) * keys).sum(dim=2)
