"""Losses of collaborative filtering; shapes: ``B`` rows, ``n`` negatives of each."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from cove_dist.models.cf.base import bpr_loss
from cove_dist.types import PositiveFloat


class PairLoss(nn.Module, ABC):
    """The loss of positives and their negatives, chosen by ``loss`` in place of the model's own.

    Its constructor takes settings as keyword arguments.

    Example::

        class Hinge(PairLoss):
            def forward(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
                return torch.relu(1 - positives.unsqueeze(1) + negatives).mean(dim=1)
    """

    @abstractmethod
    def forward(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Return the loss of every row, ``[B]``; `mean_over_rows` makes the loss of the step of it.

        Args:
            positives: Scores of positives, ``[B]``.
            negatives: Scores of their negatives, ``[B, n]``.
        """


class BPR(PairLoss):
    """``-ln sigmoid(positive - negative)``, mean over a row's pairs (Rendle et al., UAI 2009)."""

    def forward(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        return bpr_loss(positives, negatives)


class SampledSoftmax(PairLoss):
    """Cross-entropy of the positive among itself and its negatives: with several negatives the hardest count most.

    With one negative and temperature 1 it is `BPR`.

    Args:
        temperature: Divides the scores.
    """

    def __init__(self, *, temperature: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        scores = torch.cat([positives.unsqueeze(1), negatives], dim=1) / self.temperature
        return scores.logsumexp(dim=1) - scores[:, 0]
