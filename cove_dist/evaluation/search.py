"""The best k of all items for each user, from items that are scored a chunk at a time.

Shapes: ``B`` users, ``C`` items of a chunk, ``k`` best.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_SCORES = 1 << 22  # of a chunk
_BLOCK = 64  # items whose best is found first


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
    size = max(_BLOCK, _SCORES // max(1, users) // _BLOCK * _BLOCK)
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        scores = score(chunk)
        inside = (first + start <= had) & (had < first + start + len(chunk))
        scores[places[inside], had[inside] - first - start] = -torch.inf
        top, at = top_scores(scores, min(k, len(chunk)))
        ids = torch.where(top == -torch.inf, -1, at + first + start)
        best = merge(torch.cat([best[0], top], dim=1), torch.cat([best[1], ids], dim=1), k)
    return best


def top_scores(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``topk`` of scores ``[B, C]``, in a third of the time: the best k are in the k blocks whose best is best."""
    users, items = scores.shape
    if items % _BLOCK or items < k * _BLOCK:
        return scores.topk(k, dim=1)
    blocks = scores.view(users, -1, _BLOCK)
    chosen = blocks.amax(dim=2).topk(k, dim=1).indices
    candidates = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    top, place = candidates.topk(k, dim=1)
    return top, chosen.gather(1, place // _BLOCK) * _BLOCK + place % _BLOCK


def merge(scores: torch.Tensor, ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best k of lists ``[B, m]``, in order of score, then of id."""
    ids, order = ids.sort(dim=1, stable=True)
    scores, ranked = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], ids.gather(1, ranked)[:, :k]
