"""Which items a training step predicts, and from which hidden states: all of a list's positions in one call.

Shapes: ``B`` lists, ``T`` slots of a whole list, ``S`` of its target half, ``P`` predicted positions of all lists,
``d`` embedding dimension, ``n`` items of all lists: all input halves, then all target halves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.sequential.padding import Slots


class Predicted(NamedTuple):
    hidden: torch.Tensor  # [P, d]
    which: torch.Tensor  # int64 [P], the item to predict, as its place among the n


class Embedded(NamedTuple):
    """The lists of a batch.

    Attributes:
        items: ``[n, d]``.
        inputs, targets: int64 ``[B]``, lengths of the halves.
        owner: ``[B, d]``, or None where the data or the model knows none.
    """

    items: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor | None


def owner_of(model: SequentialModel, lists: Embedded) -> dict[str, torch.Tensor | None]:
    return {"owner": lists.owner} if model.reads_owner else {}


def predict_next(model: SequentialModel, lists: Embedded) -> Predicted:
    """Every item but a list's first, from the state of the item before it."""
    slots = Slots.of_halves(lists.inputs, lists.targets)
    items, place = slots.pad(lists.items), _places(slots, lists)
    hidden = model(items[:, :-1], slots.mask[:, :-1], **owner_of(model, lists))
    predicted = slots.mask[:, 1:]
    return Predicted(hidden[predicted], place[:, 1:][predicted])


def predict_masked(model: SequentialModel, lists: Embedded, share: float, last: float) -> Predicted:
    """Items masked at random; a ``last`` share of lists ends at a random place, and its last item alone is masked.

    BERT4Rec (Sun et al., 2019, section 3.6) adds the latter as separate samples, for that is how a list is continued;
    here both come out of one pass, and a list has another end in every epoch. A list of which nothing was drawn has
    its last item masked.
    """
    slots = Slots.of_halves(lists.inputs, lists.targets)
    mask = slots.mask
    place = torch.arange(mask.shape[1], device=mask.device)
    masked = mask & (torch.rand(mask.shape, device=mask.device) < share)
    cut, drawn = torch.rand(2, len(mask), device=mask.device)
    ends = drawn < last
    cut_to = (2 + (cut * (slots.lengths - 1)).long()).clamp(max=slots.lengths)  # one item or more in front of the mask
    length = torch.where(ends, cut_to, slots.lengths)
    mask = mask & (place < length[:, None])
    only_last = ends | ~masked.any(dim=1)
    masked = torch.where(only_last[:, None], place == length[:, None] - 1, masked)
    hidden = model(slots.pad(lists.items), mask, masked=masked, **owner_of(model, lists))
    return Predicted(hidden[masked], _places(slots, lists)[masked])


def predict_targets(model: SequentialModel, lists: Embedded, known_share: float = 0.0) -> Predicted:
    """Target items from the input half, all at once.

    Args:
        model: of ``decoding = "parallel"``.
        lists: of the batch.
        known_share: of each target half, from its start, what the model is shown; at least one item is left to predict.
    """
    inputs, targets = Slots.of(lists.inputs), Slots.of(lists.targets)
    given, wanted = lists.items.tensor_split([int(lists.inputs.sum())])
    place = torch.arange(len(given), len(lists.items), device=given.device)
    arguments = owner_of(model, lists) | {"target_mask": targets.mask}
    predicted = targets.mask
    if known_share:
        known = (lists.targets * known_share).floor().clamp(max=lists.targets - 1)
        known_mask = torch.arange(targets.shape[1], device=known.device) < known[:, None]
        arguments |= {"known": targets.pad(wanted), "known_mask": known_mask}
        predicted = predicted & ~known_mask
    hidden = model(inputs.pad(given), inputs.mask, targets.shape[1], **arguments)
    return Predicted(hidden[predicted], targets.pad(place)[predicted])


def _places(slots: Slots, lists: Embedded) -> torch.Tensor:
    """int64 ``[B, T]``: which of the n items stands in a slot."""
    return slots.pad(torch.arange(len(lists.items), device=lists.items.device))
