"""Caser (Tang and Wang, WSDM 2018): convolutions over the matrix of the last L items.

Shapes: ``B`` sequences, ``T`` slots of a sequence, ``d`` embedding dimension, ``L`` items of a window, ``b``
sequences and ``t`` slots of one bucket.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from cove_dist.models.layers.buckets import buckets_of
from cove_dist.models.layers.dropout import Dropout
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.types import PositiveInt, Probability


class Caser(SequentialModel):
    """The hidden state of a position scores the next item, from the window that ends at the position.

    Horizontal filters of heights 1 to L with ReLU and their maximum over the window, vertical filters (section 3.2),
    and a ReLU layer over both (3.3). Windows of neighboring positions overlap, so a filter's value at a position
    is computed once for the whole sequence. A sequence's first item is preceded by zeros.

    The paper scores with a separate vector per item, over this layer and the user's embedding (3.3). Here items score
    with their embeddings, through one more layer so that scores can be negative, and sequences have no user. Numbers of
    filters and dropout are the defaults of the authors' program.

    Args:
        embedding_dim: Embedding dimension ``d``.
        max_input: Length of the longest input; unused.
        max_target: Length of the longest target.
        window: Length ``L`` of the window.
        horizontal_filters: Number of horizontal filters per height.
        vertical_filters: Number of vertical filters, of height L.
        dropout: Dropout of the filters' values.
    """

    def __init__(
        self,
        embedding_dim: int,
        max_input: int,
        max_target: int,
        *,
        window: PositiveInt = 5,
        horizontal_filters: PositiveInt = 16,
        vertical_filters: PositiveInt = 4,
        dropout: Probability = 0.5,
    ) -> None:
        super().__init__()
        self.window = window
        heights = range(1, window + 1)
        self.horizontal = nn.ModuleList(nn.Conv1d(embedding_dim, horizontal_filters, height) for height in heights)
        self.vertical = nn.Linear(window, vertical_filters)
        self.dropout = Dropout(dropout)
        num_values = horizontal_filters * window + vertical_filters * embedding_dim
        self.joint = nn.Linear(num_values, embedding_dim)
        self.output = nn.Linear(embedding_dim, embedding_dim)

    def forward(self, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map right-padded items ``[B, T, d]`` at ``mask [B, T]`` to hidden states ``[B, T, d]``, zeros at padding."""
        buckets = buckets_of(mask)
        values = buckets.join([self._filter(sequences) for sequences in buckets.split(buckets.flatten(items))])
        return buckets.unflatten(self.output(F.relu(self.joint(self.dropout(values)))))

    def _filter(self, sequences: torch.Tensor) -> torch.Tensor:
        """Map ``[b, t, d]`` to the values of all filters in the window that ends at each position."""
        padded = F.pad(sequences, (0, 0, self.window - 1, 0))
        vertical = self.vertical(padded.unfold(1, self.window, 1)).flatten(2)
        columns = padded.transpose(1, 2)
        places = (F.relu(filters(columns)) for filters in self.horizontal)
        steps = range(self.window, 0, -1)  # offsets of a filter in a window
        largest = [F.max_pool1d(values, n, stride=1).transpose(1, 2) for values, n in zip(places, steps, strict=True)]
        return torch.cat([vertical, *largest], dim=2)
