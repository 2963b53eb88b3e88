"""The weighted mean of losses, against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cove_dist.losses.rows import mean_over_rows

ROWS = st.lists(st.tuples(st.floats(0, 50, width=32), st.floats(0, 8, width=32)), min_size=1, max_size=30)


@given(ROWS)
@example([(3.0, 4.4e-42), (5.0, 0.0)])  # a scale beyond float32
def test_the_weighted_mean_is_the_sum_of_weighted_losses_over_the_sum_of_weights(rows: list) -> None:
    losses, weights = np.array(rows).T
    expected = (losses * weights).sum() / weights.sum() if weights.sum() else 0.0
    found = mean_over_rows(torch.tensor(losses).float(), torch.tensor(weights).float())
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-30)


def test_rows_without_weights_count_the_same() -> None:
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert mean_over_rows(losses, torch.empty(0)) == mean_over_rows(losses, torch.full((3,), 0.7)) == 3


def test_a_loss_that_is_no_loss_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"returned a tensor \[\]; it must return the loss of every row, \[B\]"):
        mean_over_rows(torch.tensor(1.0), torch.empty(0))
    with pytest.raises(ValueError, match=r"weights \[2\]: must be \[B\] like the losses, \[3\]"):
        mean_over_rows(torch.zeros(3), torch.ones(2))
