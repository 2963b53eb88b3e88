"""The optimizer state of re-initialized rows."""

from __future__ import annotations

import torch

from cove_dist.quantization.moments import reset_moments


def test_momentum_is_forgotten_and_the_second_moment_is_that_of_the_others() -> None:
    state = {
        "step": torch.tensor(7.0),
        "exp_avg": torch.ones(4, 2),
        "exp_avg_sq": torch.tensor([[1.0, 2], [9, 9], [3, 4], [9, 9]]),
        "row_wise": torch.ones(4),
        "name": "adam",
    }
    reset_moments(state, torch.Size([4, 2]), torch.tensor([3, 1]))
    assert state["exp_avg"].tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert state["exp_avg_sq"].tolist() == [[1, 2], [2, 3], [3, 4], [2, 3]]
    assert state["step"] == 7
    assert state["row_wise"].tolist() == [1] * 4


def test_where_all_rows_are_placed_the_mean_is_their_own() -> None:
    state = {"sum": torch.tensor([[1.0], [3.0]]), "momentum_buffer": torch.ones(2, 1)}
    reset_moments(state, torch.Size([2, 1]), torch.arange(2))
    assert state["sum"].tolist() == [[2], [2]]
    assert state["momentum_buffer"].tolist() == [[0], [0]]


def test_before_the_first_step_there_is_nothing_to_reset() -> None:
    reset_moments({}, torch.Size([4, 2]), torch.tensor([0]))
