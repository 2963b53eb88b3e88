"""Top-k search over all items for each user, with items scored a chunk at a time.

Equal scores are ordered by id, lower first, so a list depends neither on the chunk size nor on the number of ranks.
``topk`` guarantees no order among equal scores, so rows with ties across the end of the list are corrected.

Shapes: ``B`` users, ``C`` items of a chunk, ``k`` best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from cove_dist.evaluation.positions import Positions

_SCORES = 1 << 23  # per chunk
_BLOCK = 64  # items per block; the maximum of each block is found first
_CACHE = 1 << 17  # scores of rows corrected at a time
_TIES = 20_260  # seed of the order of ties

Pairs = tuple[torch.Tensor, torch.Tensor]  # int64 [m] twice: user index in 0 .. B-1, item


class TopItems(NamedTuple):
    """The best items of each user, best first; of equal scores, the lower id first.

    Attributes:
        scores: ``[B, k]``, -inf where fewer than k items are left.
        ids: int64 ``[B, k]``, -1 where fewer are left.
        cut_ties: Number of unlisted items with the score of the last listed one, int64 ``[B]``.
    """

    scores: torch.Tensor
    ids: torch.Tensor
    cut_ties: torch.Tensor

    @classmethod
    def none(cls, users: int, k: int, like: torch.Tensor) -> TopItems:
        """Return empty lists; scores have the type and device of ``like``."""
        ids = torch.full((users, k), -1, device=like.device)
        return cls(like.new_full((users, k), -torch.inf), ids, ids.new_zeros(users))

    def with_chunk(self, scores: torch.Tensor, start: int) -> TopItems:
        """Return the lists updated with scores ``[B, C]`` of items from ``start`` on, which follow all earlier ones."""
        k = self.scores.shape[1]
        top, at, cut_ties = _top(scores, k, self.scores[:, -1])
        return merge_lists([self, TopItems(top, torch.where(top == -torch.inf, -1, at + start), cut_ties)], k)

    def positions(self, lists: torch.Tensor, scores: torch.Tensor) -> Positions:
        """Return the positions of items, listed or not, by their users ``0 … B-1`` and scores, ``[P]`` each.

        They are exact up to k, including ties across the end of a list. A score of -inf marks an unranked item.
        """
        listed, last = self.scores[lists], self.scores[lists, -1]
        tied = (listed == scores[:, None]).sum(dim=1)
        ranked = (tied > 0) & (scores > -torch.inf)
        above = torch.where(ranked, (listed > scores[:, None]).sum(dim=1), listed.shape[1])
        tied = torch.where(ranked, tied + torch.where(scores == last, self.cut_ties[lists], 0), 1)
        return Positions(lists, above, tied, *self.scores.shape)


def best_items(
    score: Callable[[torch.Tensor], torch.Tensor],
    items: torch.Tensor,
    first: int,
    users: int,
    k: int,
    excluded: Pairs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores and ids ``[B, k]``, best first; of equal scores, the lower id first. Memory: a few ``[B, C]``.

    Args:
        score: Function from a chunk ``[C, d]`` to scores ``[B, C]``.
        items: Vectors ``[n, d]`` of the items ``first .. first + n - 1``.
        users: Number of users ``B``.
        excluded: Pairs of user index and item to exclude.

    Returns:
        Scores and ids; -inf and -1 where fewer than k items are left.
    """
    best = TopItems.none(users, k, items)
    for start, scores in scored_chunks(score, items, first, users):
        mask_pairs(scores, start, excluded)
        best = best.with_chunk(scores, start)
    return best.scores, best.ids


def scored_chunks(
    score: Callable[[torch.Tensor], torch.Tensor], items: torch.Tensor, first: int, users: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the first id and the scores ``[B, C]`` of each chunk of items. Arguments as in `best_items`."""
    size = max(_BLOCK, _SCORES // max(1, users) // _BLOCK * _BLOCK)
    for start in range(0, len(items), size):
        yield first + start, score(items[start : start + size])


def mask_pairs(scores: torch.Tensor, start: int, pairs: Pairs) -> None:
    """Set the scores ``[B, C]`` of pairs of user index and item to -inf, in place; ignore items outside the chunk."""
    rows, ids = pairs
    inside = (start <= ids) & (ids < start + scores.shape[1])
    scores[rows[inside], ids[inside] - start] = -torch.inf


def pick_pairs(scores: torch.Tensor, start: int, pairs: Pairs, found: torch.Tensor) -> None:
    """Write the scores of pairs of user index and item to ``found [m]``; ignore items outside the chunk."""
    rows, ids = pairs
    inside = (start <= ids) & (ids < start + scores.shape[1])
    found[inside] = scores[rows[inside], ids[inside] - start]


def top_scores(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute ``topk`` of scores ``[B, C]``, faster, and with lower indices first among equal scores."""
    top, at, _ = _top(scores, k, scores.new_full((len(scores),), -torch.inf))
    return merge(top, at, k)


def tie_order(count: int, device: torch.device) -> torch.Tensor:
    """Return ``0 … count-1`` in a fixed pseudo-random order: int64 ``[count]``, the same on every rank and device."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_TIES), device="cpu").to(device)


def merge(scores: torch.Tensor, ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best k of lists ``[B, m]``, ordered by score, then by id."""
    ids, order = ids.sort(dim=1, stable=True)
    scores, ranked = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], ids.gather(1, ranked)[:, :k]


def merge_lists(parts: list[TopItems], k: int) -> TopItems:
    """Merge several lists of disjoint items, in any order, into the best k.

    A part may be shorter than k only if it omits no item that could be among the best.
    """
    pool = torch.cat([part.scores for part in parts], dim=1)
    scores, ids = merge(pool, torch.cat([part.ids for part in parts], dim=1), k)
    last = scores[:, -1:]
    cut_ties = (pool == last).sum(dim=1) - (scores == last).sum(dim=1)
    for part in parts:
        cut_ties += torch.where(part.scores.amin(dim=1) == last[:, 0], part.cut_ties, 0)
    return TopItems(scores, ids, torch.where(last[:, 0] == -torch.inf, 0, cut_ties))


def _top(scores: torch.Tensor, k: int, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best k of scores ``[B, C]``, for lists that already have k items of at least ``floor [B]``.

    Returns:
        Scores and indices ``[B, up to k]`` in any order, and ``cut_ties [B]``. Of equal scores, lower indices
        are returned, except for scores up to the floor, which cannot enter the lists.
    """
    cut_ties = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    top, at = _some_top(scores, k + 1)
    if top.shape[1] > k:
        last = top[:, k - 1]
        tied = (last == top[:, k]) & (last > -torch.inf)
        rows = (tied & (last >= floor)).nonzero().squeeze(1)
        for part in rows.split(max(1, _CACHE // scores.shape[1])):
            found, cut_ties[part] = _lowest_of_tied(scores[part], last[part, None], k, floor[part])
            at[part, :k] = found.where(found >= 0, at[part, :k])
        top, at = scores.gather(1, at[:, :k]) if len(rows) else top[:, :k], at[:, :k]
    return top, at, cut_ties


def _some_top(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute ``topk`` in a third of the time: the best k are in the k blocks with the largest maxima."""
    items, count = scores.shape[1], scores.shape[1] // _BLOCK
    if count < k:
        return scores.topk(min(k, items), dim=1)
    blocks, rest = scores[:, : count * _BLOCK].unflatten(1, (count, _BLOCK)), scores[:, count * _BLOCK :]
    chosen = blocks.amax(dim=2).topk(k, dim=1).indices
    candidates = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    if rest.shape[1]:
        candidates = torch.cat([candidates, rest], dim=1)
    top, place = candidates.topk(k, dim=1)
    at = chosen.gather(1, (place // _BLOCK).clamp(max=k - 1)) * _BLOCK + place % _BLOCK
    return top, torch.where(place < k * _BLOCK, at, place + (count - k) * _BLOCK)


def _lowest_of_tied(
    scores: torch.Tensor, last: torch.Tensor, k: int, floor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best indices ``[R, k]`` of rows ``[R, C]`` with k-th best score ``last [R, 1]``, and the cut ties."""
    above, tied = ~(scores <= last), scores == last  # NaN (refused later on a GPU) counts as above, as in topk
    room = k - above.count_nonzero(dim=1)
    cut_ties = tied.count_nonzero(dim=1) - room
    if bool((last[:, 0] == floor).all()):
        return torch.full((len(scores), k), -1, device=scores.device), cut_ties
    taken = above | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room[:, None]))
    return taken.nonzero()[:, 1].view(-1, k), cut_ties
