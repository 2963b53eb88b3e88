"""Continuing lists: the ranked items of every target position, left to right or all at once, for a whole batch.

Shapes: ``B`` lists, ``T`` slots, ``S`` target positions, ``K`` ranked items of a position, ``V`` items that may be
ranked, ``d`` embedding dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cove_dist.models.layers.two_stage import TwoStageClassifier, leave_out
from cove_dist.tasks.lists.positions import takes

_WORKSPACE = 1 << 23  # scores in memory at a time


class Catalogue(NamedTuple):
    """All items, on every rank.

    Attributes:
        fed: ``[V + 1, d]``, what the model reads; the last row is that of items training never saw.
        scored: ``[V, d]``, what hidden states are scored against.
        categories: int64 ``[V]``, with ``two_stage``, which ranks the items of the likeliest category alone; else None.
        bias: ``[V]``, added to scores, or None.
    """

    fed: torch.Tensor
    scored: torch.Tensor
    categories: torch.Tensor | None = None
    two_stage: TwoStageClassifier | None = None
    bias: torch.Tensor | None = None

    def rank(self, hidden: torch.Tensor, depth: int, seen: torch.Tensor | None = None) -> torch.Tensor:
        """Rank items for each hidden state.

        Args:
            hidden: ``[n, d]``.
            depth: items of each, at most V.
            seen: int64 ``[n, m]``, items to leave out; ids outside ``0 … V-1`` stand for none.

        Returns:
            int64 ``[n, depth]``, best first; -1 where no more are left, of a category or at all.
        """
        if self.two_stage is not None:
            return self.two_stage.top_items(hidden, self.scored, self.categories, depth, self.bias, seen)[0]
        return best(hidden, self.scored, depth, self.bias, seen)


class Request(NamedTuple):
    """Lists to be continued.

    Attributes:
        items: int64 ``[B, T]``, from the left.
        lengths: int64 ``[B]``, items of each.
        targets: int64 ``[B]``, how many items each is to be continued by.
        owner: ``[B, d]`` or None.
        seen: int64 ``[B, m]``, items that must not be ranked (see `Catalogue.rank`), or None.
    """

    items: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor | None
    seen: torch.Tensor | None = None


@torch.no_grad()
def continue_lists(model: nn.Module, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    """The ``depth`` best items of every target position: int64 ``[B, S, K]``, -1 past a list's ``targets``."""
    decode = _all_at_once if model.decoding == "parallel" else _left_to_right
    return decode(model, catalogue, request, min(depth, len(catalogue.scored)))


def _all_at_once(model: nn.Module, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    positions = int(request.targets.max())
    wanted = torch.arange(positions, device=request.targets.device) < request.targets[:, None]
    arguments = {"owner": request.owner} if takes(model, "owner") else {}
    mask = _mask(request.lengths, request.items)
    hidden = model(catalogue.fed[request.items], mask, positions, target_mask=wanted, **arguments)
    ranked = request.items.new_full((*wanted.shape, depth), -1)
    seen = None if request.seen is None else request.seen[wanted.nonzero()[:, 0]]
    ranked[wanted] = catalogue.rank(hidden[wanted].float(), depth, seen)
    return ranked


def _left_to_right(model: nn.Module, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    """A position's best item becomes part of the list before the next is ranked. Lists that are done drop out."""
    order = torch.argsort(request.targets, descending=True, stable=True)
    targets, lengths = request.targets[order], request.lengths[order]
    owner, seen = (None if rows is None else rows[order] for rows in (request.owner, request.seen))
    positions = int(targets.max())
    grown = torch.cat([request.items[order], request.items.new_zeros(len(order), positions)], dim=1)
    ranked = request.items.new_full((len(order), positions, depth), -1)
    for position in range(positions):
        active = int((targets > position).sum())
        hidden = _state_of_next(
            model, catalogue, grown[:active], lengths[:active], None if owner is None else owner[:active]
        )
        ranked[:active, position] = catalogue.rank(hidden, depth, None if seen is None else seen[:active])
        chosen = ranked[:active, position, 0]
        chosen = chosen.where(chosen >= 0, len(catalogue.scored))  # none is left: an item that training never saw
        grown[torch.arange(active, device=grown.device), lengths[:active]] = chosen
        lengths[:active] += 1
    return torch.empty_like(ranked).index_copy_(0, order, ranked)


def _state_of_next(
    model: nn.Module, catalogue: Catalogue, items: torch.Tensor, lengths: torch.Tensor, owner: torch.Tensor | None
) -> torch.Tensor:
    """The state ``[B, d]`` that ranks the item after the last: that of a masked item there, or of the last item."""
    rows = torch.arange(len(items), device=items.device)
    arguments = {"owner": owner} if takes(model, "owner") else {}
    last = lengths - 1
    if takes(model, "masked"):
        lengths, last = lengths + 1, lengths
        arguments["masked"] = _at(last, int(lengths.max()))
    items = items[:, : int(lengths.max())]
    hidden = model(catalogue.fed[items], _mask(lengths, items), **arguments)
    return hidden[rows, last].float()


def best(
    hidden: torch.Tensor,
    items: torch.Tensor,
    depth: int,
    bias: torch.Tensor | None = None,
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Find the highest-scoring ``depth`` of ``items [V, d]`` for ``hidden [n, d]``, but for ``seen [n, m]``.

    Returns:
        int64 ``[n, depth]``, best first, -1 where fewer are left.
    """
    chunk = max(1, _WORKSPACE // len(items))
    found = []
    for start in range(0, len(hidden), chunk):
        rows = slice(start, start + chunk)
        scores = F.linear(hidden[rows], items, bias)
        if seen is not None:
            leave_out(scores, seen[rows])
        top = scores.topk(depth, dim=1)
        found.append(top.indices.where(top.values > -torch.inf, -1))
    return torch.cat(found) if found else torch.empty(0, depth, dtype=torch.int64, device=hidden.device)


def _mask(lengths: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return torch.arange(items.shape[1], device=items.device) < lengths[:, None]


def _at(places: torch.Tensor, width: int) -> torch.Tensor:
    """bool ``[B, width]``: true at one place of each row."""
    return torch.arange(width, device=places.device) == places[:, None]
