"""The Triton sums by code against float64 `index_add`; through Triton's interpreter where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.quantization import CascadedQuantizer, triton_scatter, triton_support
from cove_dist.quantization.scatter import add_rows
from tests.properties import few
from tests.unit.quantization.triton_cases import DEVICE

METHODS = ["sorted", "atomic"]


@st.composite
def sums(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """``out [v, d]``, codes ``[N]``, rows ``[N, d]``, alpha; codes may all be one, or leave some out."""
    size, codes_used, number = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 50))
    dim = draw(st.sampled_from([1, 4, 12, 36, 100]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    used = torch.randint(0, size, (codes_used,), generator=random)
    codes = used[torch.randint(0, codes_used, (number,), generator=random)]
    out, rows = (torch.randn(n, dim, generator=random) for n in (size, number))
    alpha = draw(st.sampled_from([1.0, -1.0, 0.3]))
    return out.to(DEVICE), codes.to(DEVICE), rows.to(DEVICE), alpha


@pytest.mark.parametrize("method", METHODS)
def test_sums_are_those_of_float64(method: str) -> None:
    @given(sums())
    @few
    def check(problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]) -> None:
        out, codes, rows, alpha = problem
        expected = out.double().index_add(0, codes, rows.double(), alpha=alpha)
        added = triton_scatter.add_rows(out, codes, rows, alpha, method)
        assert added is out
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)

    check()


def test_many_rows_of_one_code_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, total = [], triton_scatter._sum_segments
    monkeypatch.setattr(
        triton_scatter, "_sum_segments", lambda *inputs: lengths.append(int(inputs[2].diff().max())) or total(*inputs)
    )
    number = 6 * triton_scatter.PIECE + 3
    codes = torch.full((number,), 2, device=DEVICE)
    codes[[0, 40]] = 0
    for method in METHODS:
        out = torch.zeros(4, 8, device=DEVICE)
        triton_scatter.add_rows(out, codes, torch.ones(number, 8, device=DEVICE), method=method)
        assert out[:, 0].tolist() == [2, 0, number - 2, 0]
    assert lengths == [triton_scatter.PIECE, 8]  # rows of a piece; pieces of a code, one of them empty


def test_sorted_sums_are_equal_to_the_bit_every_time() -> None:
    torch.manual_seed(0)
    rows, codes = torch.randn(100, 12, device=DEVICE), torch.randint(0, 5, (100,), device=DEVICE)
    first, second = (triton_scatter.add_rows(rows.new_zeros(5, 12), codes, rows) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("method", METHODS)
def test_nan_stays_with_its_code(method: str) -> None:
    rows, codes = torch.ones(30, 4, device=DEVICE), torch.arange(30, device=DEVICE) % 3
    rows[4] = torch.nan
    out = triton_scatter.add_rows(rows.new_zeros(3, 4), codes, rows, method=method)
    assert out[:, 0].isnan().tolist() == [False, True, False]
    assert out[[0, 2]].eq(10).all()


@pytest.mark.parametrize("method", METHODS)
def test_expanded_rows_and_empty_batches(method: str) -> None:
    codes = torch.tensor([1, 1, 0], device=DEVICE)
    out = torch.zeros(2, 4, device=DEVICE)
    triton_scatter.add_rows(out, codes, torch.ones(1, 1, device=DEVICE).expand(3, 4), method=method)
    triton_scatter.add_rows(out, codes[:0], out.new_ones(0, 4), method=method)
    assert out.tolist() == [[1.0] * 4, [2.0] * 4]


def test_an_output_with_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"out has strides \(1, 4\): must be contiguous"):
        triton_scatter.add_rows(torch.zeros(3, 4).t(), torch.tensor([0]), torch.zeros(1, 3))


@pytest.mark.parametrize(("deterministic", "method"), [(False, "atomic"), (True, "sorted")])
def test_gradients_of_a_quantizer(deterministic: bool, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to those by `index_add_`, for both terms and both levels; deterministic algorithms choose the method."""
    torch.manual_seed(0)
    quantizer, z = CascadedQuantizer(8, (20, 5), init_std=1.0).to(DEVICE), torch.randn(50, 8, device=DEVICE)

    def gradients(usable: bool) -> list[torch.Tensor]:
        monkeypatch.setattr(triton_support, "usable", lambda x: usable)
        quantizer.zero_grad()
        out = quantizer(z.clone().requires_grad_())
        (out.fused.square().sum() + out.loss).backward()
        return [codebook.grad for codebook in quantizer.codebooks]

    methods, add = [], triton_scatter.add_rows
    monkeypatch.setattr(triton_scatter, "add_rows", lambda *inputs: methods.append(inputs[-1]) or add(*inputs))
    expected = gradients(usable=False)
    assert not methods
    torch.use_deterministic_algorithms(deterministic)
    try:
        found = gradients(usable=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert methods == [method] * 4
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "number"), [(1, 5), (7, 0), (7, 3), (40, 1000)])
def test_sums_on_cpu_are_those_of_index_add(size: int, number: int, dtype: torch.dtype) -> None:
    torch.manual_seed(number)
    codes, rows = torch.randint(size, (number,)), torch.randn(number, 10, dtype=dtype)
    for added in (rows, torch.randn(10, number, dtype=dtype).t(), rows[:, ::2], rows[:1, :1].expand(number, 6)):
        start = torch.randn(size, added.shape[1], dtype=dtype)
        expected = start.double().index_add(0, codes, added.double(), alpha=-0.3)
        torch.testing.assert_close(add_rows(start, codes, added, alpha=-0.3).double(), expected, rtol=1e-5, atol=1e-5)


def test_rows_are_added_to_what_is_there() -> None:
    out, codes, rows = torch.zeros(3, 2).double(), torch.tensor([2, 0, 2]), torch.ones(3, 2).double()
    assert add_rows(out, codes, rows, alpha=0.5).tolist() == [[0.5, 0.5], [0, 0], [1, 1]]
