"""The Triton search against the float64 formula; through Triton's interpreter where there is no GPU.

What float32 can compute exactly must give the very codes of the formula, ties included. Of normal numbers the mode
"tf32x3" must give them too, because it ends in float64; "ieee" may choose otherwise between two codes whose squared
distances differ by less than the rounding of float32 scores, and the tests allow that and nothing else.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.quantization import CascadedQuantizer, triton_search, triton_support
from cove_dist.quantization.search import nearest_code
from tests.properties import few
from tests.unit.quantization.triton_cases import DEVICE, distances, nearest, searches

PRECISIONS = ["ieee", "tf32x3"]
EPSILON = 2.0**-24


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ties_go_to_the_lowest_index_of_the_formula(precision: str) -> None:
    @given(searches(exact=True))
    @few
    def check(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
        found = triton_search.nearest_code(*problem, precision)
        assert found.dtype == torch.int64
        assert torch.equal(found, nearest(*problem))

    check()


@given(searches(exact=False))
@few
def test_codes_in_float32_are_the_nearest_to_rounding(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, codebook = problem
    found = triton_search.nearest_code(x, codebook, "ieee").unsqueeze(1)
    squares = distances(x, codebook)
    gap = (squares.gather(1, found) - squares.amin(dim=1, keepdim=True)).squeeze(1)
    largest = codebook.norm(dim=1).max()
    assert (gap <= 4 * x.shape[1] * EPSILON * largest * (x.norm(dim=1) + largest)).all()


@given(searches(exact=False))
@few
def test_codes_by_tensor_cores_are_those_of_float64(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert torch.equal(triton_search.nearest_code(*problem, "tf32x3"), nearest(*problem))


@pytest.mark.skipif(DEVICE == "cuda", reason="replaces the interpreter's products")
@pytest.mark.parametrize("dim", [8, 64, 96])
def test_no_error_within_the_bound_changes_a_code(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes a hair apart, and products as wrong as `_margin` allows: only float64 can tell which is nearest."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    random = torch.Generator().manual_seed(dim)
    x, centres = torch.randn(40, dim, generator=random), torch.randn(20, dim, generator=random)
    codebook = torch.cat([centres, centres + 1e-6 * torch.randn(20, dim, generator=random)])
    bound = (8 * dim + 64) * EPSILON * float(codebook.norm(dim=1).max()) * x.norm(dim=1).min().item()
    product = InterpreterBuilder.create_dot

    def wrong_product(builder, a, b, d, *arguments):
        exact = product(builder, a, b, d, *arguments)
        if exact.data.dtype != "float32":
            return exact
        noise = (2 * torch.rand(exact.data.shape, generator=random) - 1) * (bound / -(-dim // a.data.shape[1]))
        return TensorHandle(exact.data + noise.numpy(), exact.dtype)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", wrong_product)
    expected = nearest(x, codebook)
    assert (triton_search.nearest_code(x, codebook, "ieee") != expected).any()
    assert torch.equal(triton_search.nearest_code(x, codebook, "tf32x3"), expected)


@pytest.mark.skipif(DEVICE == "cuda", reason="replaces the interpreter's products")
def test_three_truncated_products_stay_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """tf32x3 as tensor cores have it: the upper 10 bits of each number and of what they leave, three products."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    product, modes = InterpreterBuilder.create_dot, set()

    def truncated(values):
        return (values.view("int32") & ~0x1FFF).view("float32")

    def three_products(builder, a, b, d, precision, *arguments):
        modes.add(str(precision))
        if a.data.dtype != "float32":
            return product(builder, a, b, d, precision, *arguments)
        upper, lower = [truncated(o.data) for o in (a, b)], [truncated(o.data - truncated(o.data)) for o in (a, b)]
        sums = upper[0] @ lower[1] + lower[0] @ upper[1] + upper[0] @ upper[1] + d.data
        return TensorHandle(sums, d.dtype)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", three_products)
    random = torch.Generator().manual_seed(0)
    x, centres = torch.randn(60, 64, generator=random), torch.randn(30, 64, generator=random)
    codebook = torch.cat([centres, centres + 3e-7 * torch.randn(30, 64, generator=random)])
    assert torch.equal(triton_search.nearest_code(x, codebook, "tf32x3"), nearest(x, codebook))
    assert any("TF32x3" in mode for mode in modes)


@pytest.mark.parametrize("number", [5, 33])
def test_only_vectors_in_doubt_are_ranked_again(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of vectors near one code each, that are those between the equal codes 2 and 4."""
    codebook = 4 * torch.eye(36, device=DEVICE)[:number]
    codebook[4] = codebook[2]
    x = codebook[torch.arange(40) % number] + 0.1
    ranked = []
    again = triton_search._rank_again

    class Counting:
        def __getitem__(self, grid):
            return lambda *inputs, **options: (ranked.append(inputs[5].item()), again[grid](*inputs, **options))

    monkeypatch.setattr(triton_search, "_rank_again", Counting())
    assert torch.equal(triton_search.nearest_code(x, codebook, "tf32x3"), nearest(x, codebook))
    assert ranked == [sum(n % number in (2, 4) for n in range(40))]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bad_codes", [(), (3,), (40, 3)])
@pytest.mark.parametrize("bad_vectors", [(), (0, 20)])
def test_nan_counts_as_the_least_score(precision: str, bad_codes: tuple, bad_vectors: tuple) -> None:
    torch.manual_seed(0)
    x, codebook = torch.randn(21, 12, device=DEVICE), torch.randn(45, 12, device=DEVICE)
    x[list(bad_vectors), 5] = torch.nan
    codebook[list(bad_codes), 2] = torch.nan
    assert torch.equal(triton_search.nearest_code(x, codebook, precision), nearest_code(x, codebook, "chunked"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_infinite_numbers_have_codes_within_the_codebook(precision: str) -> None:
    torch.manual_seed(0)
    x, codebook = torch.randn(6, 8, device=DEVICE), torch.randn(33, 8, device=DEVICE)
    expected = nearest(x, codebook)
    x[0, 0], x[1, 3], x[2] = torch.inf, -torch.inf, 3e38
    found = triton_search.nearest_code(x, codebook, precision)
    assert ((found >= 0) & (found < 33)).all()
    assert torch.equal(found[3:], expected[3:])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_memory_may_lie_in_any_order(precision: str) -> None:
    torch.manual_seed(0)
    x, codebook = torch.randn(8, 19, device=DEVICE).t(), torch.randn(50, 16, device=DEVICE)[::2, ::2]
    assert torch.equal(triton_search.nearest_code(x, codebook, precision), nearest(x, codebook))
    assert triton_search.nearest_code(x[:0], codebook, precision).shape == (0,)


@given(st.integers(1, 200))
def test_blocks_of_components_pad_little(dim: int) -> None:
    block = triton_search._block_of_components(dim)
    padding = {size: -(-dim // size) * size for size in (16, 32, 64)}
    assert padding[block] == min(padding.values())
    assert all(padding[size] > padding[block] for size in padding if size > block)


@pytest.mark.parametrize(("backend", "precision"), [("triton", "ieee"), ("triton_tf32x3", "tf32x3"), ("auto", "ieee")])
def test_search_chooses_the_kernel(backend: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" takes it wherever it can be used: here every float32 tensor is said to be on CUDA."""
    monkeypatch.setattr(triton_support, "usable", lambda x: x.dtype == torch.float32)
    searched = []
    find = triton_search.nearest_code
    monkeypatch.setattr(
        triton_search, "nearest_code", lambda x, e, mode: searched.append((len(x), mode)) or find(x, e, mode)
    )
    torch.manual_seed(0)
    quantizer = CascadedQuantizer(8, (20, 5), search=backend).to(DEVICE)
    z = torch.randn(9, 8, device=DEVICE)
    codes = quantizer(z).codes
    assert searched == [(9, precision), (20, "ieee")]
    assert torch.equal(codes[:, 0], nearest(z, quantizer.codebooks[0]))
    assert nearest_code(z.double(), z.double(), "auto").tolist() == list(range(9))
    assert len(searched) == 2


@pytest.mark.parametrize("backend", ["triton", "triton_tf32x3"])
def test_other_numbers_than_float32_are_refused(backend: str) -> None:
    message = rf"search = '{backend}': takes float32 on cuda, got torch\.float64 on .*; use 'chunked'"
    with pytest.raises(ValueError, match=message):
        nearest_code(torch.zeros(3, 4).double(), torch.zeros(5, 4).double(), backend)


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"got torch\.float32 on cpu; use 'chunked'"):
        nearest_code(torch.zeros(3, 4), torch.zeros(5, 4), "triton")
