"""Jagged halves of lists, laid out in padded lists, against loops."""

from __future__ import annotations

import torch

from cove_dist.tasks.sequential.padding import Slots


def test_halves_of_a_list_stand_one_behind_the_other() -> None:
    first, second = [[1, 2], [], [3]], [[4], [5, 6, 7], []]
    values = torch.tensor([value for half in (first, second) for row in half for value in row])
    slots = Slots.of_halves(torch.tensor([2, 0, 1]), torch.tensor([1, 3, 0]))
    assert slots.pad(values, fill=-1).tolist() == [[1, 2, 4], [5, 6, 7], [3, -1, -1]]
    assert slots.mask.tolist() == [[True] * 3, [True] * 3, [True, False, False]]


def test_vectors_are_padded_with_zeros_and_their_gradients_come_back() -> None:
    vectors = torch.randn(5, 4, requires_grad=True)
    slots = Slots.of(torch.tensor([2, 0, 3]))
    padded = slots.pad(vectors)
    assert padded.shape == (3, 3, 4)
    assert torch.equal(padded[slots.mask], vectors)
    assert not padded[~slots.mask].any()
    weight = torch.randn(3, 3, 4)
    (padded * weight).sum().backward()
    assert torch.equal(vectors.grad, weight[slots.mask])


def test_no_list_and_no_item() -> None:
    assert Slots.of(torch.zeros(0, dtype=torch.int64)).shape == (0, 1)
    assert Slots.of(torch.tensor([0])).pad(torch.zeros(0, 2)).tolist() == [[[0, 0]]]
