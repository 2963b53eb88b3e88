"""FinalMLP (Mao et al., AAAI 2023): two MLPs on differently gated features, fused by a multi-head bilinear form.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns, ``n = F d + D``, ``k`` heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from cove_dist.errors import ConfigError
from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.layers.mlp import MLP
from cove_dist.types import LayerSizes, NonNegativeInt, PositiveInt, Probability


class FinalMLP(CTRHead):
    """``logit = fusion(MLP_1(gate_1 * x), MLP_2(gate_2 * x))``, x being embeddings and dense columns.

    Stream-specific feature selection and stream-level fusion as in section 3 of the paper. A gate reads the fields of
    its context, or a learned vector if the context is empty.

    Args:
        num_fields: Number of id fields ``F``.
        embedding_dim: Embedding dimension ``d``.
        num_dense: Number of dense columns ``D``.
        hidden_units: Sizes of the hidden layers of the first MLP.
        hidden_units_2: Sizes of the hidden layers of the second MLP; None: the same.
        dropout: Dropout after every hidden layer of both.
        gate_units: Sizes of the hidden layers of each gate.
        context, context_2: Indices of the fields that each gate reads; empty: a learned input.
        num_heads: Number of heads ``k``; must divide the last of both `hidden_units`.

    Raises:
        ConfigError: ``num_heads`` does not divide a stream's width, or a context field does not exist.
    """

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        *,
        hidden_units: LayerSizes = (1000, 1000, 1000),
        hidden_units_2: LayerSizes | None = None,
        dropout: Probability = 0.1,
        gate_units: LayerSizes = (64,),
        context: Sequence[NonNegativeInt] = (),
        context_2: Sequence[NonNegativeInt] = (),
        num_heads: PositiveInt = 10,
    ) -> None:
        super().__init__()
        _check_contexts(num_fields, context=context, context_2=context_2)
        width = num_fields * embedding_dim + num_dense
        self.gate_1 = FeatureGate(width, embedding_dim, context, gate_units)
        self.gate_2 = FeatureGate(width, embedding_dim, context_2, gate_units)
        self.mlp_1 = MLP(width, hidden_units, dropout)
        self.mlp_2 = MLP(width, hidden_units if hidden_units_2 is None else hidden_units_2, dropout)
        _check_heads(num_heads, hidden_units=self.mlp_1.out_dim, hidden_units_2=self.mlp_2.out_dim)
        self.fusion = BilinearFusion(self.mlp_1.out_dim, self.mlp_2.out_dim, num_heads)

    def forward(self, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Map ``fields [B, F, d]`` and ``dense [B, D]`` to logits ``[B]``."""
        inputs = torch.cat([fields.flatten(1), dense], dim=1)
        return self.fusion(self.mlp_1(inputs * self.gate_1(fields)), self.mlp_2(inputs * self.gate_2(fields)))


class FeatureGate(nn.Module):
    """Weights in (0, 2) of all features: ``2 sigmoid(MLP(context))``.

    Args:
        width: Number of weights n.
        dim: Width ``d``.
        context: Indices of the fields that it reads.
        hidden_units: Sizes of its MLP's hidden layers.
    """

    context: torch.Tensor

    def __init__(self, width: int, dim: int, context: Sequence[int], hidden_units: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("context", torch.tensor(context, dtype=torch.int64), persistent=False)
        self.learned = None if context else nn.Parameter(torch.zeros(1, dim))
        self.mlp = MLP(dim * max(1, len(context)), hidden_units)
        self.output = nn.Linear(self.mlp.out_dim, width)

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """Map fields ``[B, F, d]`` to weights ``[B, n]``, or ``[1, n]`` with a learned input, shared by all rows."""
        seen = fields.index_select(1, self.context).flatten(1) if self.learned is None else self.learned
        return 2 * torch.sigmoid(self.output(self.mlp(seen)))


class BilinearFusion(nn.Module):
    """``b + w_1 · o_1 + w_2 · o_2 + Σ_j o_1j W_j o_2j``, where ``o_1j`` and ``o_2j`` are the parts of head j.

    ``o_1j W_j + w_2j`` is one batched matrix product over heads; its dot product with ``o_2j`` covers two terms.

    Args:
        dim_1, dim_2: Sizes of ``o_1`` and ``o_2``.
        num_heads: Number of heads ``k``; divides both sizes.
    """

    def __init__(self, dim_1: int, dim_2: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear_1 = nn.Linear(dim_1, 1)
        self.weight_2 = nn.Parameter(torch.empty(dim_2))
        self.matrices = nn.Parameter(torch.empty(num_heads, dim_1 // num_heads, dim_2 // num_heads))
        for parameter, fan_in in ((self.weight_2, dim_2), (self.matrices, dim_1 // num_heads)):
            nn.init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))  # as linear layers

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Map ``o_1 [B, dim_1]`` and ``o_2 [B, dim_2]`` to ``[B]``."""
        heads = first.unflatten(1, (self.num_heads, -1)).transpose(0, 1)
        weights = torch.baddbmm(self.weight_2.view(self.num_heads, 1, -1), heads, self.matrices)
        fused = weights * second.unflatten(1, (self.num_heads, -1)).transpose(0, 1)
        return self.linear_1(first).squeeze(1) + fused.sum(dim=(0, 2))


def _check_contexts(num_fields: int, **contexts: Sequence[int]) -> None:
    for name, context in contexts.items():
        if missing := [position for position in context if position >= num_fields]:
            raise ConfigError(
                f"model.{name} = {list(context)}: no field at {missing}; allowed are 0 to {num_fields - 1}"
            )


def _check_heads(num_heads: int, **widths: int) -> None:
    for name, width in widths.items():
        if width % num_heads:
            raise ConfigError(f"model.num_heads = {num_heads}: does not divide {width}, the last of model.{name}")
