"""Losses of click-through rate prediction; shapes: ``B`` rows."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import nn

from cove_dist.types import NonNegativeFloat


class CTRLoss(nn.Module, ABC):
    """The loss of logits, chosen by ``loss``; its constructor takes settings as keyword arguments.

    Example::

        class SquaredError(CTRLoss):
            def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                return (logits.sigmoid() - labels).square()
    """

    @abstractmethod
    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of every row, ``[B]``; `mean_over_rows` makes the loss of the step of it.

        Args:
            logits: Logits, float32 ``[B]``.
            labels: Labels, 0 or 1, float32 ``[B]``.
        """


class BinaryCrossEntropy(CTRLoss):
    """Binary cross-entropy, in nats."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


class Focal(CTRLoss):
    """``(1 - p)^gamma · -log p`` for the predicted probability p of the true label (Lin et al., ICCV 2017, Eq. 4).

    Args:
        gamma: Exponent; 0 is binary cross-entropy.
    """

    def __init__(self, *, gamma: NonNegativeFloat = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        signed = (2 * labels - 1) * logits  # p = sigmoid(signed)
        return torch.exp(self.gamma * F.logsigmoid(-signed)) * F.softplus(-signed)
