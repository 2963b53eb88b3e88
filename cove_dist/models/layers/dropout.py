"""Faster dropout on CPU, where `nn.Dropout` takes a fifth of a training step of the paper's MLP."""

from __future__ import annotations

import torch
from torch import nn

_LEVELS = 1 << 16
_PER_WORD = 4  # 16-bit numbers in an int64


class Dropout(nn.Dropout):
    """`nn.Dropout` whose mask on CPU uses 16 random bits per element instead of Bernoulli draws.

    The probability is rounded to a multiple of 2**-16. Random numbers come from torch's default generator.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply dropout to a tensor of any shape."""
        dropped = round(self.p * _LEVELS)
        if not self.training or x.device.type != "cpu" or not 0 < dropped < _LEVELS:
            return super().forward(x)
        words = torch.empty(-(-x.numel() // _PER_WORD), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = bits >= dropped - _LEVELS // 2
        return x * keep.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))
