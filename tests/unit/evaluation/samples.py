"""Random users, labels and scores, with ties and one-sided users; and how states are added as ranks do."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import strategies as st
from torchmetrics import Metric


@st.composite
def samples(draw: st.DrawFn, tied: bool | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels and rising user ids, ``[B]`` each; with or without equal scores, or either."""
    sizes = draw(st.lists(st.integers(1, 15), min_size=1, max_size=12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    users = (torch.arange(len(sizes)) * 3 + 7).repeat_interleave(torch.tensor(sizes))
    rows = len(users)
    if draw(st.booleans()) if tied is None else tied:
        logits = torch.randint(-2, 3, (rows,), generator=generator) / 2
    else:
        logits = (torch.randperm(rows, generator=generator) - rows / 2) / 10
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    labels = (torch.rand(rows, generator=generator) < share).float()
    return logits, labels, users


def cut(rows: int, points: list[int]) -> list[slice]:
    """Slices of ``rows`` rows, cut at the points, some of them empty."""
    bounds = [0, *sorted(min(point, rows) for point in points), rows]
    return [slice(a, b) for a, b in pairwise(bounds)]


def reduced(ranks: list[Metric]) -> Metric:
    """The first rank's metric after the reduction over ranks; the real one is tested under tests/distributed."""
    first, *_ = ranks
    for name, reduction in first._reductions.items():
        states = [getattr(rank, name) for rank in ranks]
        listed = isinstance(states[0], list)
        gathered = [tensor for state in states for tensor in state] if listed else torch.stack(states)
        setattr(first, name, reduction(gathered))
    return first
