"""Tables for serving against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cove_dist.embeddings.serving import ServingTable, StoredRows

ROWS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6, width=32))


@given(ROWS)
def test_int8_is_off_by_at_most_half_a_step_of_its_row(rows: np.ndarray) -> None:
    stored = StoredRows.of(torch.from_numpy(rows), "int8")
    step = np.abs(rows.astype(np.float64)).max(axis=1, keepdims=True) / 127
    assert stored.values.dtype is torch.int8
    assert (np.abs(stored.restored().numpy() - rows) <= step * (0.5 + 1e-4)).all()


@pytest.mark.parametrize(("precision", "error"), [("float32", 0), ("bfloat16", 2**-8)])
def test_look_ups_and_first_rows_are_the_stored_rows(precision: str, error: float) -> None:
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    table = ServingTable(rows, precision)  # type: ignore[arg-type]
    ids = torch.tensor([[4, 0], [6, 4]])
    assert table(ids).dtype is torch.float32
    torch.testing.assert_close(table(ids), rows[ids], rtol=error, atol=0)
    torch.testing.assert_close(table.first(5), table(torch.arange(5)), rtol=0, atol=0)


def test_rows_of_zeros_stay_zeros_in_int8() -> None:
    table = ServingTable(torch.zeros(2, 3), "int8")
    assert table(torch.tensor([1])).tolist() == [[0, 0, 0]]
