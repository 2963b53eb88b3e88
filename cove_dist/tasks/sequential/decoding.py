"""Continuing lists: the ranked items of every target position, left to right or all at once, for a whole batch.

Shapes: ``B`` lists, ``T`` slots, ``S`` target positions, ``K`` ranked items of a position, ``d`` embedding dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from cove_dist.evaluation.positions import Positions
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.sequential.ranking import Catalogue


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

    def of(self, lists: torch.Tensor) -> Request:
        """Return the request of some lists, bool ``[B]``."""
        owner, seen = (None if rows is None else rows[lists] for rows in (self.owner, self.seen))
        return Request(self.items[lists], self.lengths[lists], self.targets[lists], owner, seen)


@torch.no_grad()
def rank_next(
    model: SequentialModel, catalogue: Catalogue, request: Request, targets: torch.Tensor, depth: int
) -> Positions:
    """Find the position of the true next item of each list, ties included.

    Args:
        model, catalogue: as of `continue_lists`.
        request: lists that are to be continued by one item.
        targets: int64 ``[B]``, the true items.
        depth: up to which position it matters.
    """
    hidden = next_states(model, catalogue, request)
    return catalogue.positions(hidden, targets, depth, request.seen)


@torch.no_grad()
def next_states(model: SequentialModel, catalogue: Catalogue, request: Request) -> torch.Tensor:
    """Return the states float32 ``[B, d]`` that rank the next item of each list.

    Args:
        model, catalogue: as of `continue_lists`.
        request: lists that are to be continued by one item.
    """
    if model.decoding == "parallel":
        one = torch.ones(len(request.lengths), 1, dtype=torch.bool, device=request.lengths.device)
        return _parallel_states(model, catalogue, request, one)[:, 0].float()
    return _state_of_next(model, catalogue, request.items, request.lengths, request.owner)


@torch.no_grad()
def continue_lists(model: SequentialModel, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    """Rank the ``depth`` best items at every target position: int64 ``[B, S, K]``, -1 past a list's ``targets``.

    Ties are listed in a fixed pseudo-random order, see `Catalogue`: what their expected value is, cannot be said of
    lists whose later items depend on the first.
    """
    decode = _all_at_once if model.decoding == "parallel" else _left_to_right
    return decode(model, catalogue, request, min(depth, len(catalogue.scored)))


def _all_at_once(model: SequentialModel, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    positions = int(request.targets.max())
    wanted = torch.arange(positions, device=request.targets.device) < request.targets[:, None]
    hidden = _parallel_states(model, catalogue, request, wanted)
    ranked = request.items.new_full((*wanted.shape, depth), -1)
    seen = None if request.seen is None else request.seen[wanted.nonzero()[:, 0]]
    ranked[wanted] = catalogue.rank(hidden[wanted].float(), depth, seen)
    return ranked


def _parallel_states(
    model: SequentialModel, catalogue: Catalogue, request: Request, wanted: torch.Tensor
) -> torch.Tensor:
    """The states ``[B, S, d]`` of all target positions; ``wanted [B, S]``: which each list has."""
    arguments = {"owner": request.owner} if model.reads_owner else {}
    mask = _mask(request.lengths, request.items)
    return model(catalogue.fed[request.items], mask, wanted.shape[1], target_mask=wanted, **arguments)


def _left_to_right(model: SequentialModel, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
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
    model: SequentialModel, catalogue: Catalogue, items: torch.Tensor, lengths: torch.Tensor, owner: torch.Tensor | None
) -> torch.Tensor:
    """The state ``[B, d]`` that ranks the item after the last: that of a masked item there, or of the last item."""
    rows = torch.arange(len(items), device=items.device)
    arguments = {"owner": owner} if model.reads_owner else {}
    last = lengths - 1
    if model.reads_masked_items:
        lengths, last = lengths + 1, lengths
        arguments["masked"] = _at(last, int(lengths.max()))
    items = items[:, : int(lengths.max())]
    hidden = model(catalogue.fed[items], _mask(lengths, items), **arguments)
    return hidden[rows, last].float()


def _mask(lengths: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return torch.arange(items.shape[1], device=items.device) < lengths[:, None]


def _at(places: torch.Tensor, width: int) -> torch.Tensor:
    """bool ``[B, width]``: true at one place of each row."""
    return torch.arange(width, device=places.device) == places[:, None]
