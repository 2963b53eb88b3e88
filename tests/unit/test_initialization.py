"""Initial tables: a function of position and seed."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.embeddings.initialization import fill_normal_

ROWS, COLUMNS = 40, 12


def drawn(
    rows: int = ROWS, columns: int = COLUMNS, row_offset: int = 0, column_offset: int = 0, **changed
) -> torch.Tensor:
    arguments = {"std": 0.5, "seed": 1, "table": "user_id"} | changed
    shard = torch.empty(rows, columns)
    fill_normal_(shard, row_offset=row_offset, column_offset=column_offset, **arguments)
    return shard


@given(row=st.integers(0, ROWS), column=st.integers(0, COLUMNS))
def test_four_shards_make_up_the_whole_table(row: int, column: int) -> None:
    top = [drawn(row, column), drawn(row, COLUMNS - column, 0, column)]
    bottom = [drawn(ROWS - row, column, row, 0), drawn(ROWS - row, COLUMNS - column, row, column)]
    assert torch.equal(torch.cat([torch.cat(top, 1), torch.cat(bottom, 1)]), drawn())


def test_tables_and_seeds_differ() -> None:
    assert (drawn() == drawn(table="item_id")).sum() == 0
    assert (drawn() == drawn(seed=2)).sum() == 0


def test_values_are_normal_and_uncorrelated() -> None:
    values = drawn(200_000, 4)
    torch.testing.assert_close(values.std(), torch.tensor(0.5), rtol=0.01, atol=0)
    assert values.mean().abs() < 0.003
    assert abs(((values / 0.5) ** 4).mean() - 3) < 0.05
    assert torch.corrcoef(values.T).fill_diagonal_(0).abs().max() < 0.01
    assert abs(torch.corrcoef(torch.stack([values[1:, 0], values[:-1, 0]]))[0, 1]) < 0.01


def test_shards_longer_than_a_chunk() -> None:
    assert torch.equal(drawn(70_000, 1)[65_000:], drawn(5_000, 1, row_offset=65_000))
