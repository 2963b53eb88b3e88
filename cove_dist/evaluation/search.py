"""The best k of all items for each user, from items that are scored a chunk at a time.

Equal scores are ordered by id, lower first, so that a list depends neither on the size of the chunks nor on the number
of ranks. ``topk`` promises no order among equal scores: rows whose scores tie across the end of the list are repaired.

Shapes: ``B`` users, ``C`` items of a chunk, ``k`` best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from cove_dist.evaluation.positions import Positions

_SCORES = 1 << 23  # of a chunk
_BLOCK = 64  # items whose best is found first
_CACHE = 1 << 17  # scores of rows that are repaired at a time
_TIES = 20_260  # seed of the order of ties

Pairs = tuple[torch.Tensor, torch.Tensor]  # int64 [m] twice: user index in 0 .. B-1, item


class TopItems(NamedTuple):
    """The best items of each user, best first; of equal scores the lower id.

    Attributes:
        scores: ``[B, k]``, -inf where fewer than k items are left.
        ids: int64 ``[B, k]``, -1 where fewer are left.
        cut_ties: int64 ``[B]``: items that are not listed although their score is that of the last one listed.
    """

    scores: torch.Tensor
    ids: torch.Tensor
    cut_ties: torch.Tensor

    @classmethod
    def none(cls, users: int, k: int, like: torch.Tensor) -> TopItems:
        """Lists without items; scores of the type and on the device of ``like``."""
        ids = torch.full((users, k), -1, device=like.device)
        return cls(like.new_full((users, k), -torch.inf), ids, ids.new_zeros(users))

    def with_chunk(self, scores: torch.Tensor, start: int) -> TopItems:
        """The lists after scores ``[B, C]`` of the items from ``start`` on, which come after all items seen before."""
        k = self.scores.shape[1]
        top, at, cut_ties = _top(scores, k, self.scores[:, -1])
        return merge_lists([self, TopItems(top, torch.where(top == -torch.inf, -1, at + start), cut_ties)], k)

    def positions(self, lists: torch.Tensor, scores: torch.Tensor) -> Positions:
        """Return the positions of items, listed or not, by their users ``0 … B-1`` and scores, ``[P]`` each.

        They are exact up to k, ties across the end of a list included. A score of -inf stands for an item that is not
        ranked.
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
    """Scores and ids ``[B, k]``, best first; of equal scores the lower id. Memory: some ``[B, C]``, never all items.

    Args:
        score: of a chunk ``[C, d]``: ``[B, C]``.
        items: vectors ``[n, d]`` of the items ``first .. first + n - 1``.
        users: ``B``.
        excluded: pairs that are not to be listed.

    Returns:
        Where fewer than k items are left, the rest has score -inf and id -1.
    """
    best = TopItems.none(users, k, items)
    for start, scores in scored_chunks(score, items, first, users):
        mask_pairs(scores, start, excluded)
        best = best.with_chunk(scores, start)
    return best.scores, best.ids


def scored_chunks(
    score: Callable[[torch.Tensor], torch.Tensor], items: torch.Tensor, first: int, users: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """The items a chunk at a time: the chunk's first id, and scores ``[B, C]``. Arguments as of `best_items`."""
    size = max(_BLOCK, _SCORES // max(1, users) // _BLOCK * _BLOCK)
    for start in range(0, len(items), size):
        yield first + start, score(items[start : start + size])


def mask_pairs(scores: torch.Tensor, start: int, pairs: Pairs) -> None:
    """Set the scores ``[B, C]`` of pairs of user index and item to -inf, in place; items outside the chunk are none."""
    rows, ids = pairs
    inside = (start <= ids) & (ids < start + scores.shape[1])
    scores[rows[inside], ids[inside] - start] = -torch.inf


def pick_pairs(scores: torch.Tensor, start: int, pairs: Pairs, found: torch.Tensor) -> None:
    """Put the scores of pairs of user index and item into ``found [m]``; of items outside the chunk nothing."""
    rows, ids = pairs
    inside = (start <= ids) & (ids < start + scores.shape[1])
    found[inside] = scores[rows[inside], ids[inside] - start]


def top_scores(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``topk`` of scores ``[B, C]``, faster, and of equal scores the lower index first."""
    top, at, _ = _top(scores, k, scores.new_full((len(scores),), -torch.inf))
    return merge(top, at, k)


def tie_order(count: int, device: torch.device) -> torch.Tensor:
    """Return ``0 … count-1`` in a fixed pseudo-random order: int64 ``[count]``, the same on every rank and device."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_TIES), device="cpu").to(device)


def merge(scores: torch.Tensor, ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best k of lists ``[B, m]``, in order of score, then of id."""
    ids, order = ids.sort(dim=1, stable=True)
    scores, ranked = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], ids.gather(1, ranked)[:, :k]


def merge_lists(parts: list[TopItems], k: int) -> TopItems:
    """The best k of several lists of disjoint items, which may be in any order.

    A part may be shorter than k only if it leaves no item out that could be among the best.
    """
    pool = torch.cat([part.scores for part in parts], dim=1)
    scores, ids = merge(pool, torch.cat([part.ids for part in parts], dim=1), k)
    last = scores[:, -1:]
    cut_ties = (pool == last).sum(dim=1) - (scores == last).sum(dim=1)
    for part in parts:
        cut_ties += torch.where(part.scores.amin(dim=1) == last[:, 0], part.cut_ties, 0)
    return TopItems(scores, ids, torch.where(last[:, 0] == -torch.inf, 0, cut_ties))


def _top(scores: torch.Tensor, k: int, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best k of scores ``[B, C]``, for lists that have k items of at least ``floor [B]`` already.

    Returns:
        Scores and indices ``[B, up to k]`` in any order, and ``cut_ties [B]``. Of equal scores they are the lower
        indices, but for scores up to the floor, of which lists take no more.
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
    """As ``topk``, in a third of the time: the best k are in the k blocks whose best is best."""
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
    """Of rows ``[R, C]`` whose k-th best score is ``last [R, 1]``: indices ``[R, k]``, and how many ties are cut."""
    above, tied = ~(scores <= last), scores == last  # NaN, refused later on a GPU, is above as it is for topk
    room = k - above.count_nonzero(dim=1)
    cut_ties = tied.count_nonzero(dim=1) - room
    if bool((last[:, 0] == floor).all()):
        return torch.full((len(scores), k), -1, device=scores.device), cut_ties
    taken = above | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room[:, None]))
    return taken.nonzero()[:, 1].view(-1, k), cut_ties
