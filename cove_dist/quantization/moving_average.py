"""Codebooks as exponential moving averages of the vectors that chose each code.

van den Oord et al., "Neural Discrete Representation Learning" (2017), appendix A.1; Laplace smoothing of the counts as
in Razavi et al., "Generating Diverse High-Fidelity Images with VQ-VAE-2" (2019), and their published module.

Shapes: ``v_i`` codes at level i, ``d`` components.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from cove_dist.quantization.search import nearest_code
from cove_dist.quantization.statistics import code_statistics, sums_and_mass

SMOOTHING = 1e-5


class MovingAverages(nn.Module):
    """Counts and sums of every level, and the step's own of level 1, which are all that replicas exchange.

    The inputs of a level i >= 2 are rows of the codebook before it: its statistics follow from the counts of level 1. A
    code that nothing chooses keeps its place until its average count falls to the smoothing, then drifts to the origin.

    Args:
        levels: ``v_1 > ... > v_H``.
        dim: d.
        decay: the share of the averages that stays at each step.
    """

    averages: torch.Tensor
    step_statistics: torch.Tensor

    def __init__(self, levels: Sequence[int], dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._sizes = [size * (dim + 1) for size in levels]
        self.register_buffer("averages", torch.empty(sum(self._sizes)))
        self.register_buffer("step_statistics", torch.zeros(self._sizes[0]), persistent=False)

    def restart(self, codebooks: Sequence[torch.Tensor]) -> None:
        """Begin at the codebooks ``[v_i, d]``, each row with the weight of one vector."""
        for level, codebook in enumerate(codebooks):
            self.place(codebooks, level, torch.arange(len(codebook), device=codebook.device))

    def observe(self, z: torch.Tensor, counts: torch.Tensor | None, codes: torch.Tensor) -> None:
        """Add vectors ``z [N, d]`` with their level-1 codes ``[N]`` to the step under way."""
        size = self.step_statistics.numel() // (z.shape[1] + 1)
        self.step_statistics += code_statistics(z, counts, codes, size)

    @torch.no_grad()
    def update(self, codebooks: Sequence[torch.Tensor]) -> None:
        """Move averages and codebooks by `step_statistics`, which the replicas have summed, and begin the next step."""
        statistics = [self.step_statistics]
        for fine, coarse in pairwise(codebooks):
            _, mass = sums_and_mass(statistics[-1], len(fine))
            statistics.append(code_statistics(fine, mass, nearest_code(fine, coarse), len(coarse)))
        self.averages.mul_(self.decay).add_(torch.cat(statistics), alpha=1 - self.decay)
        for codebook, flat in zip(codebooks, self.averages.split(self._sizes), strict=True):
            sums, mass = sums_and_mass(flat, len(codebook))
            total = mass.sum()
            smoothed = (mass + SMOOTHING) * (total / (total + SMOOTHING * len(codebook)))
            torch.div(sums, smoothed.unsqueeze(1), out=codebook)
        self.step_statistics.zero_()

    @torch.no_grad()
    def place(self, codebooks: Sequence[torch.Tensor], level: int, rows: torch.Tensor) -> None:
        """Begin the averages of some rows anew at their code vectors, with the weight of one vector."""
        sums, mass = sums_and_mass(self.averages.split(self._sizes)[level], len(codebooks[level]))
        sums[rows] = codebooks[level][rows]
        mass[rows] = 1
