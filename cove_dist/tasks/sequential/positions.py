"""Selects the items that a training step predicts and the hidden states that predict them, in one call per batch.

Shapes: ``B`` sequences, ``T`` slots of a whole sequence, ``S`` slots of its target half, ``P`` predicted positions of
all sequences, ``d`` embedding dimension, ``n`` items of all sequences: all input halves, then all target halves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.sequential.padding import Slots, sent


class Predicted(NamedTuple):
    hidden: torch.Tensor  # [P, d]
    which: torch.Tensor  # int64 [P], index of the item to predict among the n items


class Embedded(NamedTuple):
    """The sequences of a batch.

    Attributes:
        items: Input vectors of the items ``[n, d]``.
        inputs, targets: Lengths of the halves, int64 ``[B]``, on the host, where the layout and all draws are made.
        owner: Embeddings of the owners ``[B, d]``, or None if the data or the model have no owners.
    """

    items: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor | None


def owner_of(model: SequentialModel, sequences: Embedded) -> dict[str, torch.Tensor | None]:
    return {"owner": sequences.owner} if model.reads_owner else {}


def predict_next(model: SequentialModel, sequences: Embedded) -> Predicted:
    """Predict every item except a sequence's first, from the state of the item before it."""
    slots = Slots.of_halves(sequences.inputs, sequences.targets)
    items, mask = slots.pad(sequences.items), sent(slots.mask, sequences.items.device)
    hidden = model(items[:, :-1], mask[:, :-1], **owner_of(model, sequences))
    return _predicted(hidden, slots.mask[:, 1:], _positions(slots, sequences)[:, 1:])


def predict_masked(model: SequentialModel, sequences: Embedded, share: float, last: float) -> Predicted:
    """Predict items masked at random; in a ``last`` share of truncated sequences, only the last item is masked.

    BERT4Rec (Sun et al., 2019, section 3.6) adds the latter as separate samples, which match inference; here one pass
    does both, and the truncation position is random in every epoch. If no item of a sequence is drawn, its last item
    is masked.
    """
    slots = Slots.of_halves(sequences.inputs, sequences.targets)
    mask = slots.mask
    position = torch.arange(mask.shape[1], device=mask.device)
    masked = mask & (torch.rand(mask.shape, device=mask.device) < share)
    cut, drawn = torch.rand(2, len(mask), device=mask.device)
    ends = drawn < last
    cut_to = (2 + (cut * (slots.lengths - 1)).long()).clamp(max=slots.lengths)  # at least one item before the mask
    length = torch.where(ends, cut_to, slots.lengths)
    mask = mask & (position < length[:, None])
    only_last = ends | ~masked.any(dim=1)
    masked = torch.where(only_last[:, None], position == length[:, None] - 1, masked)
    on_device = {"mask": sent(mask, sequences.items.device), "masked": sent(masked, sequences.items.device)}
    hidden = model(slots.pad(sequences.items), **on_device, **owner_of(model, sequences))
    return _predicted(hidden, masked, _positions(slots, sequences))


def predict_targets(model: SequentialModel, sequences: Embedded, known_share: float = 0.0) -> Predicted:
    """Predict target items from the input half, all at once.

    Args:
        model: Model with ``decoding = "parallel"``.
        sequences: Sequences of the batch.
        known_share: Share of each target half, from its start, shown to the model; at least one item remains.
    """
    inputs, targets = Slots.of(sequences.inputs), Slots.of(sequences.targets)
    input_items, target_items = sequences.items.tensor_split([int(sequences.inputs.sum())])
    device = sequences.items.device
    position = torch.arange(len(input_items), len(sequences.items), device=sequences.inputs.device)
    arguments = owner_of(model, sequences) | {"target_mask": sent(targets.mask, device)}
    predicted = targets.mask
    if known_share:
        known = (sequences.targets * known_share).floor().clamp(max=sequences.targets - 1)
        known_mask = torch.arange(targets.shape[1], device=known.device) < known[:, None]
        arguments |= {"known": targets.pad(target_items), "known_mask": sent(known_mask, device)}
        predicted = predicted & ~known_mask
    hidden = model(inputs.pad(input_items), sent(inputs.mask, device), targets.shape[1], **arguments)
    return _predicted(hidden, predicted, targets.pad(position))


def _predicted(hidden: torch.Tensor, predicted: torch.Tensor, position: torch.Tensor) -> Predicted:
    """Select the states of ``hidden [B, T, d]`` and the items of ``position [B, T]`` by a mask on the host."""
    rows = sent(predicted.flatten().nonzero().squeeze(1), hidden.device)
    return Predicted(hidden.flatten(0, 1).index_select(0, rows), sent(position[predicted], hidden.device))


def _positions(slots: Slots, sequences: Embedded) -> torch.Tensor:
    """Return the index of each slot's item among the n items, int64 ``[B, T]``, on the host."""
    return slots.pad(torch.arange(len(sequences.items), device=slots.lengths.device))
