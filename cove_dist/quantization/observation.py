"""Recent inputs of a quantizer, stored for codebook maintenance between steps.

Shapes: ``N`` vectors, ``n`` distinct ones, ``d`` components.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import torch

from cove_dist.quantization.replicas import generator


class Observation(NamedTuple):
    """A detached copy of the counted inputs of one training pass, or of several with the same ids.

    Attributes:
        vectors: Vectors ``[N, d]``.
        counts: Counts int64 ``[N]``; None: all 1.
        ids: Ids int64 ``[N]`` or None, as passed to the quantizer.
    """

    vectors: torch.Tensor
    counts: torch.Tensor | None
    ids: torch.Tensor | None

    @classmethod
    def of(cls, vectors: torch.Tensor, counts: torch.Tensor | None, ids: torch.Tensor | None) -> Observation:
        """Copy the vectors of a pass, without those of count 0: a slice would keep all looked-up fields alive."""
        if counts is None:
            return cls(vectors.detach().clone(), None, None if ids is None else ids.clone())
        counted = counts.nonzero().flatten()
        of_counted = None if ids is None else ids.index_select(0, counted)
        return cls(vectors.detach().index_select(0, counted), counts.index_select(0, counted), of_counted)

    def to(self, device: torch.device) -> Observation:
        """Return the observation on a device."""
        counts, ids = (None if part is None else part.to(device) for part in (self.counts, self.ids))
        return Observation(self.vectors.to(device), counts, ids)


def add_observation(observations: list[Observation], seen: Observation) -> None:
    """Append an observation, or merge it with the latest one if that has the same ids, or no ids and the same vectors.

    The newer vectors with the counts of both are all that `distinct_vectors` uses. So the rows of a whole table, which
    every pass has, are kept once.
    """
    if observations and _is_of_the_same(observations[-1], seen):
        counts = _counts(observations[-1]) + _counts(seen)
        observations[-1] = Observation(seen.vectors, counts, seen.ids)
    else:
        observations.append(seen)


def _is_of_the_same(former: Observation, seen: Observation) -> bool:
    if former.ids is None or seen.ids is None:
        return former.ids is seen.ids and torch.equal(former.vectors, seen.vectors)
    return torch.equal(former.ids, seen.ids)


def oldest_first(observations: Iterable[Sequence[Observation]]) -> list[Observation]:
    """Merge the observations of several replicas, each up to the same step, in order of their steps."""
    newest_first = list(zip_longest(*map(reversed, observations)))
    return [seen for step in reversed(newest_first) for seen in step if seen is not None]


def distinct_vectors(observations: Sequence[Observation]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every vector once with its count: the latest vector of each id, or without ids each distinct vector.

    Args:
        observations: At least one observation, oldest first.

    Returns:
        Vectors ``[n, d]`` and counts int64 ``[n]``; vectors of count 0 are excluded.
    """
    vectors = torch.cat([seen.vectors for seen in observations])
    counts = torch.cat([_counts(seen) for seen in observations])
    ids = [seen.ids for seen in observations if seen.ids is not None]
    keys = torch.cat(ids) if len(ids) == len(observations) else _fingerprints(vectors)
    occurs = counts > 0
    vectors, counts = vectors[occurs], counts[occurs]
    distinct, inverse = torch.unique(keys[occurs], return_inverse=True)
    places = torch.arange(len(inverse), device=inverse.device)
    last = torch.zeros_like(distinct).scatter_reduce_(0, inverse, places, "amax")
    return vectors.index_select(0, last), torch.zeros_like(distinct).index_add_(0, inverse, counts)


def _counts(seen: Observation) -> torch.Tensor:
    ones = torch.ones(len(seen.vectors), dtype=torch.int64, device=seen.vectors.device)
    return ones if seen.counts is None else seen.counts


def _fingerprints(vectors: torch.Tensor) -> torch.Tensor:
    """Return an int64 hash of each row, since ``torch.unique(dim=0)`` compares rows sequentially."""
    bits = (vectors + 0.0).view(torch.int64 if vectors.dtype == torch.float64 else torch.int32)  # -0.0 becomes 0.0
    random = generator(vectors.device, vectors.shape[1])
    factors = torch.randint(-(2**63), 2**63 - 1, bits.shape[1:], device=vectors.device, generator=random) | 1
    mixed = bits * factors  # int64 arithmetic wraps
    return (mixed ^ (mixed >> 32)).sum(dim=1)  # without the shift two flipped signs would cancel
