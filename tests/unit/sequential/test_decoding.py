"""Continuing lists in batches against continuing one list after the other, in loops."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from cove_dist.models.layers.two_stage import TwoStageClassifier
from cove_dist.tasks.sequential.decoding import Catalogue, Request, continue_sequences
from tests.unit.sequential.models import Masked, OwnerAware, Parallel, Recurrent

V, D, K = 23, 8, 4
LENGTHS, TARGETS = [3, 1, 5, 2], [2, 6, 1, 4]


@pytest.fixture
def catalogue() -> Catalogue:
    torch.manual_seed(0)
    return Catalogue(torch.randn(V + 1, D), torch.randn(V, D))


@pytest.fixture
def request_() -> Request:
    torch.manual_seed(1)
    items = torch.randint(V + 1, (4, 5))  # what stands behind a list's end must not matter
    return Request(items, torch.tensor(LENGTHS), torch.tensor(TARGETS), torch.randn(4, D))


def ranked(hidden: torch.Tensor, catalogue: Catalogue, seen: Sequence[int] = ()) -> list[int]:
    order = torch.argsort(catalogue.scored @ hidden, descending=True).tolist()
    return [item for item in order if item not in seen][:K]


def with_seen(request: Request) -> Request:
    """The request, of which no item of a list's input may be ranked."""
    places = torch.arange(request.items.shape[1])
    return request._replace(seen=request.items.where(places < request.lengths[:, None], -1))


def continued_plainly(model: nn.Module, catalogue: Catalogue, request: Request, row: int) -> list[list[int]]:
    items, positions = request.items[row, : LENGTHS[row]].tolist(), []
    seen = list(items) if request.seen is not None else []
    for _ in range(TARGETS[row]):
        read = [*items, 0] if isinstance(model, Masked) else items
        arguments = {"owner": request.owner[row][None]} if isinstance(model, OwnerAware) else {}
        if isinstance(model, Masked):
            arguments = {"masked": torch.tensor([[False] * len(items) + [True]])}
        hidden = model(catalogue.fed[read][None], torch.ones(1, len(read), dtype=torch.bool), **arguments)
        positions.append(ranked(hidden[0, -1], catalogue, seen))
        items.append(positions[-1][0])
    return positions


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("kind", [Recurrent, OwnerAware])
@torch.no_grad()
def test_left_to_right(kind: type, exclude_seen: bool, catalogue: Catalogue, request_: Request) -> None:
    request_ = with_seen(request_) if exclude_seen else request_
    model = kind(D, 5, 6).eval()
    found = continue_sequences(model, catalogue, request_, K)
    assert found.shape == (4, 6, K)
    for row in range(4):
        assert found[row, : TARGETS[row]].tolist() == continued_plainly(model, catalogue, request_, row)
        assert (found[row, TARGETS[row] :] == -1).all()


class MaskedOneByOne(Masked):
    """Reads each list without padding, since a recurrence from the right would begin in it."""

    def forward(self, items: torch.Tensor, mask: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros_like(items)
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            part = items[row, :length][None], mask[row, :length][None], masked[row, :length][None]
            hidden[row, :length] = super().forward(*part)[0]
        return hidden


@pytest.mark.parametrize("exclude_seen", [False, True])
@torch.no_grad()
def test_left_to_right_by_a_mask_at_the_end(exclude_seen: bool, catalogue: Catalogue, request_: Request) -> None:
    request_ = with_seen(request_) if exclude_seen else request_
    model = MaskedOneByOne(D, 5, 6).eval()
    found = continue_sequences(model, catalogue, request_, K)
    for row in range(4):
        assert found[row, : TARGETS[row]].tolist() == continued_plainly(model, catalogue, request_, row)


@pytest.mark.parametrize("exclude_seen", [False, True])
@torch.no_grad()
def test_all_at_once(exclude_seen: bool, catalogue: Catalogue, request_: Request) -> None:
    request_ = with_seen(request_) if exclude_seen else request_
    model = Parallel(D, 5, 6).eval()
    found = continue_sequences(model, catalogue, request_, K)
    for row in range(4):
        items = request_.items[row, : LENGTHS[row]]
        given, seen = catalogue.fed[items], items.tolist() if exclude_seen else []
        for position in range(TARGETS[row]):
            hidden = model.linear(given.mean(dim=0)) + model.positions[position]
            assert found[row, position].tolist() == ranked(hidden, catalogue, seen)
        assert (found[row, TARGETS[row] :] == -1).all()


def test_no_more_items_are_ranked_than_there_are(catalogue: Catalogue, request_: Request) -> None:
    model = Recurrent(D, 5, 6).eval()
    few = Catalogue(catalogue.fed, catalogue.scored[:3])
    assert continue_sequences(model, few, request_, K).shape == (4, 6, 3)


@pytest.mark.parametrize("kind", [Recurrent, Parallel])
def test_where_all_but_few_items_are_seen_the_rest_is_none(kind: type, catalogue: Catalogue, request_: Request) -> None:
    """As many items as are left, each of them once, whatever the model; and none at all if none is left."""
    model = kind(D, 5, 6).eval()
    few = Catalogue(catalogue.fed[: 4 + 1], catalogue.scored[:4])
    seen = torch.tensor([[0, 3, 3], [-1, 4, 4], [0, 1, 2], [2, 2, -1]])
    left = [{1, 2}, {0, 1, 2, 3}, {3}, {0, 1, 3}]
    found = continue_sequences(model, few, request_._replace(items=request_.items % 5, seen=seen), K)
    for row, rest in enumerate(left):
        for position in found[row, : TARGETS[row]].tolist():
            assert position[len(rest) :] == [-1] * (K - len(rest))
            assert set(position[: len(rest)]) == rest
    everything = request_._replace(items=request_.items % 5, seen=torch.arange(4).expand(4, 4))
    assert (continue_sequences(model, few, everything, K) == -1).all()


@torch.no_grad()
def test_a_two_stage_classifier_leaves_out_what_was_seen() -> None:
    torch.manual_seed(0)
    classifier = TwoStageClassifier(D, 3).eval()
    hidden, items, categories = torch.randn(40, D), torch.randn(V, D), torch.arange(V) % 3
    seen = torch.randint(-1, V + 1, (40, 6))
    free = Catalogue(items, items, categories, classifier).rank(hidden, V)
    found = Catalogue(items, items, categories, classifier).rank(hidden, V, seen)
    for before, after, had in zip(free.tolist(), found.tolist(), seen.tolist(), strict=True):
        kept = [item for item in before if item >= 0 and item not in had]
        assert after == kept + [-1] * (V - len(kept))
