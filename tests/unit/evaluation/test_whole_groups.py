from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.evaluation import WholeGroups
from tests.unit.evaluation.samples import cut


@given(st.lists(st.integers(-3, 5), max_size=40).map(sorted), st.lists(st.integers(0, 40), max_size=8))
def test_hands_on_whole_groups_in_order(groups: list[int], points: list[int]) -> None:
    rows = torch.arange(len(groups))
    whole_groups = WholeGroups()
    out = [
        whole_groups.push(torch.tensor(groups[part], dtype=torch.int64), rows[part]) for part in cut(len(rows), points)
    ]
    out = [part for part in (*out, whole_groups.flush()) if part is not None]
    assert [group for part, _ in out for group in part.tolist()] == groups
    assert [row for _, part in out for row in part.tolist()] == rows.tolist()
    handed = [set(part.tolist()) for part, _ in out]
    assert sum(map(len, handed)) == len(set().union(*handed))  # no group in two parts
    assert whole_groups.flush() is None


def test_only_the_last_group_is_held() -> None:
    whole_groups = WholeGroups()
    groups, values = whole_groups.push(torch.tensor([1, 1, 2, 3]), torch.tensor([10, 11, 12, 13]))
    assert (groups.tolist(), values.tolist()) == ([1, 1, 2], [10, 11, 12])
    assert whole_groups.push(torch.tensor([3]), torch.tensor([14])) is None
    groups, values = whole_groups.push(torch.tensor([4]), torch.tensor([15]))
    assert (groups.tolist(), values.tolist()) == ([3, 3], [13, 14])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([[1, 3, 2]], "row 2 of the batch is of group 2, after group 3: sort the rows by group"),
        ([[1, 3], [2, 5]], "row 0 of the batch is of group 2, after group 3"),
        ([[5], [], [4]], "row 0 of the batch is of group 4, after group 5"),
    ],
)
def test_rows_that_are_not_sorted(batches: list[list[int]], message: str) -> None:
    whole_groups = WholeGroups()
    with pytest.raises(ValueError, match=message):
        for batch in batches:
            whole_groups.push(torch.tensor(batch, dtype=torch.int64))


def test_a_group_does_not_go_on_after_flush() -> None:
    whole_groups = WholeGroups()
    whole_groups.push(torch.tensor([1, 2]))
    whole_groups.flush()
    with pytest.raises(ValueError, match="group 2 after it was flushed"):
        whole_groups.push(torch.tensor([2]))
    whole_groups.push(torch.tensor([3]))
    assert whole_groups.flush()[0].tolist() == [3]
