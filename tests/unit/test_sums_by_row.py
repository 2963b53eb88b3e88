"""Sums of gradients by row against `torch.unique` and float64, for tables that are small and large next to the ids."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given

from cove_dist.embeddings.rows import distinct_rows, sum_by_row


@given(st.lists(st.integers(0, 99), max_size=30), st.sampled_from([100, 10_000]))
def test_sums_are_those_of_every_row(numbers: list[int], rows: int) -> None:
    ids = torch.tensor(numbers, dtype=torch.int64)
    for found, expected in zip(distinct_rows(ids, rows), torch.unique(ids, return_inverse=True), strict=True):
        assert torch.equal(found, expected)
    gradients = torch.randn(len(ids), 3, generator=torch.Generator().manual_seed(0))
    distinct, sums = sum_by_row(ids, gradients, rows)
    dense = torch.zeros(rows, 3, dtype=torch.float64).index_add_(0, ids, gradients.double())
    torch.testing.assert_close(sums.double(), dense[distinct], rtol=0, atol=1e-5)
