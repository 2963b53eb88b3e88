"""Category negatives of a sampled softmax: each position is scored against a part of the sample.

Shapes: ``P`` positions, ``n`` sampled items, ``m`` of them of single categories, ``B`` sequences, ``N`` items of all
sequences.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from data_pipeline.streaming.vocabulary import CategorySplit


class CategoryNegatives:
    """Which sampled items a position is scored against: those of all categories, and those of its target's category.

    Of the latter, items of the position's own sequence are left out. The correction by probabilities is that of the
    sample of all categories, with the number of items that a position has: items of the target's category count as
    further draws, so they weigh more than in the full softmax, by a factor that is equal within the category.

    Args:
        split: How the sample is divided.
        count: Number of sampled items ``n``.
    """

    def __init__(self, split: CategorySplit, count: int) -> None:
        self._split = split
        self._codes: torch.Tensor | None = None
        self.log_scale = math.log((split.of_all + split.of_each) / count)  # of the expected counts

    @property
    def known(self) -> bool:
        """Whether there are codes yet; before, every position is scored against the whole sample."""
        return self._codes is not None

    def set_codes(self, codes: np.ndarray, device: torch.device) -> None:
        """Set the codes of the items, integers ``[num_seen]``."""
        self._codes = torch.from_numpy(codes).to(device)

    def excluded(
        self,
        sampled: torch.Tensor,
        targets: torch.Tensor,
        ids: torch.Tensor,
        owners: torch.Tensor,
        sequences: torch.Tensor,
        count: int,
    ) -> torch.Tensor:
        """Return which sampled items a position is not scored against, bool ``[P, n]``. No host sync.

        Args:
            sampled: Sampled items, int64 ``[n]``.
            targets: True items of the positions, int64 ``[P]``.
            ids: Items of all sequences, int64 ``[N]``.
            owners: The sequence of each of these, int64 ``[N]``.
            sequences: The sequence of each position, int64 ``[P]``.
            count: Number of sequences ``B``.
        """
        assert self._codes is not None
        split, device = self._split, sampled.device
        codes = torch.arange(split.codes, device=device).repeat_interleave(split.of_each)
        others = self._codes[targets].unsqueeze(1) != codes
        own = _membership(sampled[split.of_all :], ids, owners, count)[sequences]
        of_all = torch.zeros(len(targets), split.of_all, dtype=torch.bool, device=device)
        return torch.cat([of_all, others | own], dim=1)


def _membership(items: torch.Tensor, ids: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Return which of ``items [m]`` occur in each sequence, bool ``[B, m]``."""
    ordered, place = items.sort()
    first = torch.searchsorted(ordered, ids)
    found = ordered[first.clamp(max=len(items) - 1)] == ids
    member = torch.zeros(count, len(items) + 1, dtype=torch.bool, device=items.device)
    member[owners, torch.where(found, first, len(items))] = True
    firsts = torch.searchsorted(ordered, ordered)  # equal items share the first of them
    return member[:, :-1][:, firsts].index_select(1, place.argsort())
