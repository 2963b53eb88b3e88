"""Dynamic negative sampling: train on the highest-scoring of several candidates per negative.

W. Zhang et al., "Optimizing Top-N Collaborative Filtering via Dynamic Negative Item Sampling", SIGIR 2013.

Shapes: ``B`` rows, ``n`` negatives a row, ``C`` candidates of all rows, ``d`` width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cove_dist.models.cf.base import Recommender


@dataclass(frozen=True)
class HardestOf:
    """Chooses negatives among candidates.

    Attributes:
        count: Number of negatives per row, ``n``.
        candidates: Number of candidates per negative, in rows that have several.
        in_all_rows: Whether every row has several candidates.
    """

    count: int
    candidates: int
    in_all_rows: bool = True

    @torch.no_grad()
    def choose(
        self, head: Recommender, users: torch.Tensor, candidates: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Choose the candidate with the highest score for each negative; the first of equal ones. No host sync.

        Args:
            head: Model that scores the candidates.
            users: Embeddings of users ``[B, d]``.
            candidates: Embeddings of candidates ``[C, d]``, row by row.
            lengths: Number of candidates per row ``[B]``: n, or ``n * self.candidates``, grouped by negative.

        Returns:
            int64 ``[B * n]``, positions in ``candidates``.
        """
        owners = torch.repeat_interleave(lengths, output_size=len(candidates))
        scores = head(users.index_select(0, owners), candidates.unsqueeze(1)).squeeze(1)
        sizes = (lengths // self.count).repeat_interleave(self.count, output_size=len(lengths) * self.count)
        first = (sizes.cumsum(0) - sizes).unsqueeze(1)
        slots = torch.arange(self.candidates, device=lengths.device)
        positions = first + torch.minimum(slots, sizes.unsqueeze(1) - 1)
        return positions.gather(1, scores[positions].argmax(dim=1, keepdim=True)).squeeze(1)
