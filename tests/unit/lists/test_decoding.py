"""Continuing lists in batches against continuing one list after the other, in loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cove_dist.tasks.lists.decoding import Catalogue, Request, continue_lists
from tests.unit.lists.models import Masked, OwnerAware, Parallel, Recurrent

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


def ranked(hidden: torch.Tensor, catalogue: Catalogue) -> list[int]:
    return torch.argsort(catalogue.scored @ hidden, descending=True)[:K].tolist()


def continued_plainly(model: nn.Module, catalogue: Catalogue, request: Request, row: int) -> list[list[int]]:
    items, positions = request.items[row, : LENGTHS[row]].tolist(), []
    for _ in range(TARGETS[row]):
        read = [*items, 0] if isinstance(model, Masked) else items
        arguments = {"owner": request.owner[row][None]} if isinstance(model, OwnerAware) else {}
        if isinstance(model, Masked):
            arguments = {"masked": torch.tensor([[False] * len(items) + [True]])}
        hidden = model(catalogue.fed[read][None], torch.ones(1, len(read), dtype=torch.bool), **arguments)
        positions.append(ranked(hidden[0, -1], catalogue))
        items.append(positions[-1][0])
    return positions


@pytest.mark.parametrize("kind", [Recurrent, OwnerAware])
@torch.no_grad()
def test_left_to_right(kind: type, catalogue: Catalogue, request_: Request) -> None:
    model = kind(D, 5, 6).eval()
    found = continue_lists(model, catalogue, request_, K)
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


@torch.no_grad()
def test_left_to_right_by_a_mask_at_the_end(catalogue: Catalogue, request_: Request) -> None:
    model = MaskedOneByOne(D, 5, 6).eval()
    found = continue_lists(model, catalogue, request_, K)
    for row in range(4):
        assert found[row, : TARGETS[row]].tolist() == continued_plainly(model, catalogue, request_, row)


@torch.no_grad()
def test_all_at_once(catalogue: Catalogue, request_: Request) -> None:
    model = Parallel(D, 5, 6).eval()
    found = continue_lists(model, catalogue, request_, K)
    for row in range(4):
        given = catalogue.fed[request_.items[row, : LENGTHS[row]]]
        for position in range(TARGETS[row]):
            hidden = model.linear(given.mean(dim=0)) + model.positions[position]
            assert found[row, position].tolist() == ranked(hidden, catalogue)
        assert (found[row, TARGETS[row] :] == -1).all()


def test_no_more_items_are_ranked_than_there_are(catalogue: Catalogue, request_: Request) -> None:
    model = Recurrent(D, 5, 6).eval()
    few = Catalogue(catalogue.fed, catalogue.scored[:3])
    assert continue_lists(model, few, request_, K).shape == (4, 6, 3)
