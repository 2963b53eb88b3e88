"""A stack of fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cove_dist.models.layers.dropout import Dropout


class MLP(nn.Sequential):
    """Linear, ReLU, dropout for every hidden size; no output layer. ``[..., in_dim] -> [..., hidden_units[-1]]``."""

    def __init__(self, in_dim: int, hidden_units: Sequence[int], dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for out_dim in hidden_units:
            layers += [nn.Linear(in_dim, out_dim), nn.ReLU()]
            if dropout > 0:
                layers.append(Dropout(dropout))
            in_dim = out_dim
        super().__init__(*layers)
        self.out_dim = in_dim
