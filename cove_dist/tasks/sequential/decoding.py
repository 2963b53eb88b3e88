"""Decoding: rank items for every target position of a batch, left to right or all at once.

Shapes: ``B`` sequences, ``T`` slots, ``S`` target positions, ``K`` ranked items per position, ``d`` dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from cove_dist.evaluation.positions import Positions
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.sequential.ranking import Catalogue


class Request(NamedTuple):
    """Sequences to continue.

    Attributes:
        items: Input items int64 ``[B, T]``, left-aligned.
        lengths: Number of input items int64 ``[B]``.
        targets: Number of items to predict for each sequence, int64 ``[B]``.
        owner: Embeddings of the owners ``[B, d]``, or None.
        seen: Items to exclude from the ranking, int64 ``[B, m]`` (see `Catalogue.rank`), or None.
    """

    items: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor | None
    seen: torch.Tensor | None = None

    def of(self, sequences: torch.Tensor) -> Request:
        """Return the request of the sequences selected by a mask, bool ``[B]``."""
        owner, seen = (None if rows is None else rows[sequences] for rows in (self.owner, self.seen))
        return Request(self.items[sequences], self.lengths[sequences], self.targets[sequences], owner, seen)


@torch.no_grad()
def rank_next(
    model: SequentialModel, catalogue: Catalogue, request: Request, targets: torch.Tensor, depth: int
) -> Positions:
    """Find the position of the true next item of each sequence, ties included.

    Args:
        model, catalogue: As in `continue_sequences`.
        request: Sequences to continue by one item.
        targets: True items, int64 ``[B]``.
        depth: Largest position that matters.
    """
    hidden = next_states(model, catalogue, request)
    return catalogue.positions(hidden, targets, depth, request.seen)


@torch.no_grad()
def next_states(model: SequentialModel, catalogue: Catalogue, request: Request) -> torch.Tensor:
    """Return the states float32 ``[B, d]`` that rank the next item of each sequence.

    Args:
        model, catalogue: As in `continue_sequences`.
        request: Sequences to continue by one item.
    """
    if model.decoding == "parallel":
        one = torch.ones(len(request.lengths), 1, dtype=torch.bool, device=request.lengths.device)
        return _parallel_states(model, catalogue, request, one)[:, 0].float()
    return _state_of_next(model, catalogue, request.items, request.lengths, request.owner)


@torch.no_grad()
def continue_sequences(model: SequentialModel, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    """Rank the ``depth`` best items at every target position: int64 ``[B, S, K]``, -1 past a sequence's ``targets``.

    Ties are listed in a fixed pseudo-random order (see `Catalogue`); expected values over ties are not available,
    because later items depend on earlier ones.
    """
    decode = _all_at_once if model.decoding == "parallel" else _left_to_right
    return decode(model, catalogue, request, min(depth, len(catalogue.scored)))


def _all_at_once(model: SequentialModel, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    positions = int(request.targets.max())
    predicted = torch.arange(positions, device=request.targets.device) < request.targets[:, None]
    hidden = _parallel_states(model, catalogue, request, predicted)
    ranked = request.items.new_full((*predicted.shape, depth), -1)
    seen = None if request.seen is None else request.seen[predicted.nonzero()[:, 0]]
    ranked[predicted] = catalogue.rank(hidden[predicted].float(), depth, seen)
    return ranked


def _parallel_states(
    model: SequentialModel, catalogue: Catalogue, request: Request, predicted: torch.Tensor
) -> torch.Tensor:
    """Return the states ``[B, S, d]`` of all target positions; ``predicted [B, S]`` masks those of each sequence."""
    arguments = {"owner": request.owner} if model.reads_owner else {}
    mask = _mask(request.lengths, request.items)
    return model(catalogue.fed[request.items], mask, predicted.shape[1], target_mask=predicted, **arguments)


def _left_to_right(model: SequentialModel, catalogue: Catalogue, request: Request, depth: int) -> torch.Tensor:
    """Append each position's best item to the sequence before ranking the next; finished sequences drop out."""
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
        chosen = chosen.where(chosen >= 0, len(catalogue.scored))  # no item left: use the out-of-vocabulary row
        grown[torch.arange(active, device=grown.device), lengths[:active]] = chosen
        lengths[:active] += 1
    return torch.empty_like(ranked).index_copy_(0, order, ranked)


def _state_of_next(
    model: SequentialModel, catalogue: Catalogue, items: torch.Tensor, lengths: torch.Tensor, owner: torch.Tensor | None
) -> torch.Tensor:
    """Return the state ``[B, d]`` that ranks the next item: of a masked item after the last, or of the last item."""
    rows = torch.arange(len(items), device=items.device)
    arguments = {"owner": owner} if model.reads_owner else {}
    last = lengths - 1
    if model.reads_masked_items:
        lengths, last = lengths + 1, lengths
        arguments["masked"] = _at(last, int(lengths.max()))
    width = int(lengths.max())
    items = F.pad(items[:, :width], (0, max(0, width - items.shape[1])))  # the mask may need a further slot
    hidden = model(catalogue.fed[items], _mask(lengths, items), **arguments)
    return hidden[rows, last].float()


def _mask(lengths: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return torch.arange(items.shape[1], device=items.device) < lengths[:, None]


def _at(positions: torch.Tensor, width: int) -> torch.Tensor:
    """Return a mask, bool ``[B, width]``, that is true at one position of each row."""
    return torch.arange(width, device=positions.device) == positions[:, None]
