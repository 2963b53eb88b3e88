"""Search backends against the distances themselves."""

from __future__ import annotations

import sys
from typing import get_args

import pytest
import torch

from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.search import Search, nearest_code, nearest_with_distance

SIZES = [(1, 1, 3), (70, 40, 5), (300, 384, 8), (300, 385, 8), (500, 1000, 16)]


def distances(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


@pytest.mark.parametrize(("size", "codes", "dim"), SIZES)
@pytest.mark.parametrize("backend", ["auto", "chunked", "faiss"])
def test_the_code_found_is_the_nearest_to_rounding(backend: str, size: int, codes: int, dim: int) -> None:
    torch.manual_seed(size + codes)
    x, codebook = torch.randn(size, dim), torch.randn(codes, dim)
    exact = distances(x, codebook)
    found = nearest_code(x, codebook, backend)
    assert found.dtype == torch.int64
    chosen = exact.gather(1, found.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(chosen, exact.amin(dim=1), rtol=1e-5, atol=1e-5)
    assert (found == exact.argmin(dim=1)).float().mean() > 0.99


def test_a_quantizer_uses_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def searching(x: torch.Tensor, codebook: torch.Tensor, backend: str = "auto") -> torch.Tensor:
        asked.append(backend)
        return nearest_code(x, codebook)

    monkeypatch.setattr("cove_dist.quantization.assignment.nearest_code", searching)
    backends = get_args(Search)[1:]  # the first chooses one of them
    for backend in backends:
        CascadedQuantizer(4, (5,), search=backend)(torch.randn(3, 4))
    assert asked == list(backends)


def test_the_distance_is_that_of_the_nearest_code() -> None:
    x, codebook = torch.randn(40, 6, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)
    codes, found = nearest_with_distance(x, codebook)
    torch.testing.assert_close(found, distances(x, codebook).amin(dim=1))
    assert torch.equal(codes, nearest_code(x, codebook))
    assert nearest_with_distance(codebook, codebook)[1].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 5, 13, 18, 64])
@pytest.mark.parametrize("codes", [7, 100, 501])
def test_the_lowest_of_equal_codes_is_found(codes: int, dim: int, dtype: torch.dtype) -> None:
    """Every code is there four times; rounding must not tell the copies apart, wherever they are in memory."""
    torch.manual_seed(codes * dim)
    codebook = torch.randn(codes, dim, dtype=dtype).repeat(4, 1)
    for size in (1, 2, 7, 33, 260):
        assert (nearest_code(torch.randn(size, dim, dtype=dtype), codebook, "chunked") < codes).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_codes_do_not_depend_on_threads_or_chunks(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, codebook = torch.randn(101, 6, dtype=torch.float64), torch.randn(19, 6, dtype=torch.float64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("cove_dist.quantization.search.WORKSPACE_CPU", 32 * 7)
    assert torch.equal(nearest_code(x, codebook, "chunked"), distances(x, codebook).argmin(dim=1))


def test_no_vectors_have_no_codes() -> None:
    for backend in ("chunked", "faiss"):
        assert nearest_code(torch.empty(0, 4), torch.randn(500, 4), backend).shape == (0,)


@pytest.mark.parametrize("codes", [33, 400])
def test_infinite_numbers_have_codes_within_the_codebook(codes: int) -> None:
    x, codebook = torch.randn(3, 8), torch.randn(codes, 8)
    x[0, 0], x[1, 3] = torch.inf, -torch.inf
    found = nearest_code(x, codebook)
    assert ((found >= 0) & (found < codes)).all()
    assert found[2] == distances(x, codebook)[2].argmin()


def test_faiss_takes_only_float32_and_says_what_to_use() -> None:
    with pytest.raises(ValueError, match=r"x is torch\.float64 on cpu: .* use 'chunked'"):
        nearest_code(torch.zeros(3, 4).double(), torch.zeros(5, 4).double(), "faiss")


def test_faiss_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match="pip install faiss-cpu, or use 'auto'"):
        nearest_code(torch.zeros(3, 4), torch.zeros(5, 4), "faiss")
