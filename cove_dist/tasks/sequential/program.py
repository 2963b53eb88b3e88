"""A sequential model as a torch-only module with its tables: padded sequences to queries, or to scores of all items.

Shapes: ``B`` sequences, ``T`` slots, ``V`` items seen in training, ``d`` embedding dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cove_dist.embeddings.serving import ServingTable
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.sequential.ranking import FirstStage


class Served(NamedTuple):
    """The parts of a sequential model for serving.

    Attributes:
        model: The model, in eval mode.
        fed: Input vectors of the model ``[num_rows, d]``.
        scored: Vectors that states are scored against, those of the ``num_seen`` items first; may be ``fed`` itself.
        owners: Embeddings of owners, or None if the model does not read them.
        bias: Bias of each item's score ``[V]``, or None.
        num_seen: Number of items ``V``.
    """

    model: SequentialModel
    fed: ServingTable
    scored: ServingTable
    owners: ServingTable | None
    bias: torch.Tensor | None
    num_seen: int


class NextItemQuery(nn.Module):
    """States whose inner products with items score these as the next ones.

    Like `cove_dist.tasks.sequential.decoding.next_states`, with shapes that depend on no value.
    """

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.model, self.fed, self.owners = served.model, served.fed, served.owners
        self._has_bias = served.bias is not None

    def forward(self, items: torch.Tensor, lengths: torch.Tensor, owner: torch.Tensor | None = None) -> torch.Tensor:
        """Return queries for an index of items: the states, and a last component of 1 if items have a bias.

        Args:
            items: Encoded items int64 ``[B, T]``, left-aligned; values in the slots behind a sequence are ignored.
            lengths: Lengths of the sequences int64 ``[B]``, from 1 to T.
            owner: Encoded owners int64 ``[B]``, for models that read them.
        """
        states = self.states(items, lengths, owner)
        return F.pad(states, (0, 1), value=1.0) if self._has_bias else states

    def states(self, items: torch.Tensor, lengths: torch.Tensor, owner: torch.Tensor | None) -> torch.Tensor:
        """Return states ``[B, d]``, without the component of the bias."""
        model, last = self.model, lengths - 1
        arguments: dict[str, torch.Tensor] = {}
        if self.owners is not None and owner is not None:
            arguments["owner"] = self.owners(owner)
        if model.decoding == "parallel":
            mask = torch.arange(items.shape[1], device=items.device) < lengths.unsqueeze(1)
            return model(self.fed(items), mask, 1, **arguments)[:, 0]
        if model.reads_masked_items:
            items = F.pad(items, (0, 1))
            lengths, last = lengths + 1, lengths
        slots = torch.arange(items.shape[1], device=items.device)
        if model.reads_masked_items:
            arguments["masked"] = slots == last.unsqueeze(1)
        hidden = model(self.fed(items), slots < lengths.unsqueeze(1), **arguments)
        at = last.view(-1, 1, 1).expand(-1, 1, hidden.shape[2])
        return hidden.gather(1, at).squeeze(1)


class NextItemScores(nn.Module):
    """Scores of all items as the next of a sequence; -inf outside the likeliest category of a two-stage model.

    Args:
        served: Parts of the model.
        first_stage: The choice of a category, for two-stage models.
    """

    bias: torch.Tensor | None
    categories: torch.Tensor
    filled: torch.Tensor

    def __init__(self, served: Served, first_stage: FirstStage | None = None) -> None:
        super().__init__()
        self.query, self.scored, self.num_seen = NextItemQuery(served), served.scored, served.num_seen
        self.register_buffer("bias", served.bias)
        self.category_logits = None if first_stage is None else first_stage.classifier.head
        if first_stage is not None:
            self.register_buffer("categories", first_stage.categories)
            self.register_buffer("filled", first_stage.filled)

    def forward(self, items: torch.Tensor, lengths: torch.Tensor, owner: torch.Tensor | None = None) -> torch.Tensor:
        """Return scores ``[B, V]``; arguments are those of `NextItemQuery`."""
        states = self.query.states(items, lengths, owner)
        scores = F.linear(states, self.scored.first(self.num_seen), self.bias)
        if self.category_logits is None:
            return scores
        likeliest = self.filled[self.category_logits(states)[:, self.filled].argmax(dim=1)]
        return scores.masked_fill(self.categories != likeliest.unsqueeze(1), -torch.inf)
