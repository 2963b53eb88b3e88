"""The best k of all items for each user, from items that are scored a chunk at a time.

Shapes: ``B`` users, ``C`` items of a chunk, ``k`` best.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_SCORES = 1 << 22  # of a chunk


def best_items(
    score: Callable[[torch.Tensor], torch.Tensor],
    items: torch.Tensor,
    first: int,
    users: int,
    k: int,
    excluded: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and ids ``[B, k]``, best first; of equal scores the lower id. Memory: some ``[B, C]``, never all items.

    Args:
        score: of a chunk ``[C, d]``: ``[B, C]``.
        items: vectors ``[n, d]`` of the items ``first .. first + n - 1``.
        users: ``B``.
        excluded: int64 ``[m]`` twice: user (place in 0 .. B-1) and item of pairs that are not to be listed.

    Returns:
        Where fewer than k items are left, the rest has score -inf and id -1.
    """
    places, had = excluded
    best = (items.new_full((users, k), -torch.inf), torch.full((users, k), -1, device=items.device))
    size = max(1, _SCORES // max(1, users))
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        scores = score(chunk)
        inside = (first + start <= had) & (had < first + start + len(chunk))
        scores[places[inside], had[inside] - first - start] = -torch.inf
        top, at = scores.topk(min(k, len(chunk)), dim=1)
        ids = torch.where(top == -torch.inf, -1, at + first + start)
        best = merge(torch.cat([best[0], top], dim=1), torch.cat([best[1], ids], dim=1), k)
    return best


def merge(scores: torch.Tensor, ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best k of lists ``[B, m]``, in order of score, then of id."""
    ids, order = ids.sort(dim=1, stable=True)
    scores, ranked = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], ids.gather(1, ranked)[:, :k]
