"""Codebooks as exponential moving averages of the vectors that chose each code.

van den Oord et al., "Neural Discrete Representation Learning" (2017), appendix A.1, average counts and sums: of ``n``
vectors with sum ``s`` in a step ``N <- decay N + (1 - decay) n``, ``m <- decay m + (1 - decay) s``, and ``e = m / N``.
Substituting ``m = N e`` gives ``e <- e + (1 - decay) (s - n e) / N``: only ``N`` has to be stored next to the codebook,
and a code that no vector chooses does not move, however small ``N`` becomes.

Shapes: ``v_i`` codes at level i, ``d`` components.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from cove_dist.quantization.assignment import Cascade
from cove_dist.quantization.search import nearest_code
from cove_dist.quantization.statistics import code_statistics, sums_and_weights

SMOOTHING = 1e-5  # added to counts (Laplace), as in Razavi et al., "Generating Diverse High-Fidelity Images" (2019)


class MovingAverages(nn.Module):
    """Moving averages of the counts of every level, and the statistics of level 1 in the current step.

    Args:
        levels: Numbers of codes ``v_1 > ... > v_H``.
        dim: Dimension d.
        decay: Decay of the averages per step.
        cascade: Kind of cascade; see `assignment`.
        dtype: Type of the statistics, float32 or float64.

    Attributes:
        frozen: Whether the codebook and counts of each level are frozen.
    """

    counts: torch.Tensor
    step_statistics: torch.Tensor

    def __init__(
        self,
        levels: Sequence[int],
        dim: int,
        decay: float,
        cascade: Cascade = "codes",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.levels, self.decay, self.frozen = list(levels), decay, [False] * len(levels)
        self._observed = list(levels) if cascade == "residual" else [levels[0]]
        self.register_buffer("counts", torch.ones(sum(levels), dtype=dtype))
        self.register_buffer(
            "step_statistics", torch.zeros(sum(self._observed) * (dim + 1), dtype=dtype), persistent=False
        )

    def observe(
        self,
        z: torch.Tensor,
        counts: torch.Tensor | None,
        codebooks: Sequence[torch.Tensor],
        assignment: Sequence[torch.Tensor],
    ) -> None:
        """Add vectors ``z [N, d]`` to the current step: to level 1, or to every level of a residual cascade."""
        statistics = []
        for level, size in enumerate(self._observed):
            if level > 0:
                z = z - codebooks[level - 1].index_select(0, assignment[level - 1])
            statistics.append(code_statistics(z, counts, assignment[level], size))
        self.step_statistics += torch.cat(statistics)

    @torch.no_grad()
    def take_statistics(self, codebooks: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return counts and sums of all levels in the current step, ``[sum of v_i (d + 1)]``, and reset them.

        In a cascade of codes, the inputs of a level i >= 2 are rows of the previous codebook, so its statistics follow
        from the counts there.
        Each replica takes its statistics, and `update` receives their sum. Upper levels are also summed over replicas
        rather than computed from the sum, which on CUDA would depend on the order of atomic additions.
        """
        statistics = [self.step_statistics.clone()]
        for fine, coarse in pairwise(codebooks[: 1 + len(self.levels) - len(self._observed)]):
            _, chosen = sums_and_weights(statistics[-1], len(fine))
            statistics.append(code_statistics(fine, chosen, nearest_code(fine, coarse), len(coarse)))
        self.step_statistics.zero_()
        return torch.cat(statistics)

    @torch.no_grad()
    def update(self, codebooks: Sequence[torch.Tensor], statistics: torch.Tensor) -> None:
        """Update counts and codebooks, except frozen ones, with the statistics of a step."""
        parts = statistics.split([codebook.numel() + len(codebook) for codebook in codebooks])
        levels = zip(codebooks, self.counts.split(self.levels), parts, self.frozen, strict=True)
        for codebook, average, flat, frozen in levels:
            if frozen:
                continue
            sums, chosen = sums_and_weights(flat, len(codebook))
            average.mul_(self.decay).add_(chosen, alpha=1 - self.decay)
            rate = (1 - self.decay) / (average + SMOOTHING)
            codebook.add_((sums - codebook * chosen.unsqueeze(1)) * rate.unsqueeze(1))

    @torch.no_grad()
    def reset(self, level: int | None = None, rows: torch.Tensor | slice = slice(None)) -> None:
        """Reset the counts of codes of a level, or of all levels, to the initial value of one vector per step."""
        part = self.counts if level is None else self.counts.split(self.levels)[level]
        part[rows] = 1
