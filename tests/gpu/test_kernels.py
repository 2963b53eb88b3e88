"""The Triton kernels, compiled, against float64; the interpreter of the other tests shares neither layout nor races."""

from __future__ import annotations

import pytest
import torch

from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.scatter import add_rows
from cove_dist.quantization.search import nearest_code
from tests.unit.quantization.triton_cases import distances, nearest

SHAPES = [(1, 1, 8), (33, 70, 20), (5000, 500, 64), (3001, 4001, 64), (700, 300, 96)]  # N, v, d


def vectors(rows: int, dim: int, seed: int, exact: bool = False) -> torch.Tensor:
    random = torch.Generator("cuda").manual_seed(seed)
    if exact:  # float32 computes every score without rounding
        return torch.randint(-4, 5, (rows, dim), generator=random, device="cuda") / 4
    return torch.randn(rows, dim, generator=random, device="cuda")


@pytest.mark.parametrize("search", ["triton", "triton_tf32x3", "auto", "chunked"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ties_go_to_the_lowest_index_of_the_formula(shape: tuple[int, int, int], search: str) -> None:
    rows, codes, dim = shape
    x, codebook = vectors(rows, dim, 0, exact=True), vectors(codes, dim, 1, exact=True)
    codebook[codes // 2 :] = codebook[: codes - codes // 2].clone()
    found = nearest_code(x, codebook, search)
    for part, codes_of_part in zip(x.split(256), found.split(256), strict=True):
        assert torch.equal(codes_of_part, nearest(part, codebook))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_codes_by_tensor_cores_are_those_of_float64(shape: tuple[int, int, int]) -> None:
    rows, codes, dim = shape
    x, codebook = vectors(rows, dim, 2), vectors(codes, dim, 3)
    codebook[1::2] = codebook[: len(codebook[1::2])] + 1e-6 * vectors(len(codebook[1::2]), dim, 4)
    found = nearest_code(x, codebook, "triton_tf32x3")
    for part, codes_of_part in zip(x.split(256), found.split(256), strict=True):
        squares = distances(part, codebook)
        chosen = squares.gather(1, codes_of_part.unsqueeze(1)).squeeze(1)
        assert ((chosen - squares.amin(dim=1)) <= 1e-12 * (1 + squares.amax(dim=1))).all()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 8), (5000, 500, 64), (20000, 10, 64), (3001, 4001, 20)], ids=str)
def test_sums_by_code(shape: tuple[int, int, int], ordered: bool) -> None:
    rows, size, dim = shape
    x, start = vectors(rows, dim, 5), vectors(size, dim, 6)
    codes = (torch.rand(rows, generator=torch.Generator("cuda").manual_seed(7), device="cuda") ** 4 * size).long()
    torch.use_deterministic_algorithms(ordered)
    try:
        first, second = (add_rows(start.clone(), codes, x, alpha=-0.5) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    expected = start.double().index_add_(0, codes, x.double(), alpha=-0.5)
    assert (first - expected).norm() <= 1e-5 * expected.norm()
    assert not ordered or torch.equal(first, second)


@pytest.mark.parametrize("cascade", ["codes", "residual"])
@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_the_quantizer_of_the_gpu_is_that_of_the_cpu(cascade: str, learning: str) -> None:
    """Fused vectors, codes, loss and gradients in float32; counts, ids and padding included."""
    torch.manual_seed(0)
    here = CascadedQuantizer(16, (40, 6), cascade=cascade, learning=learning, init_std=1.0)
    there = CascadedQuantizer(16, (40, 6), cascade=cascade, learning=learning, init_std=1.0).cuda()
    there.load_state_dict(here.state_dict())
    ids = torch.arange(300) % 120
    z = torch.randn(120, 16)[ids]
    counts = torch.arange(300) % 4
    found = {}
    for name, quantizer in (("cpu", here), ("cuda", there)):
        leaf = z.to(name).requires_grad_()
        out = quantizer(leaf, counts=counts.to(name), ids=ids.to(name))
        (out.fused.square().sum() + out.loss).backward()
        gradients = [e.grad for e in quantizer.codebooks if e.grad is not None]
        found[name] = [out.fused, out.codes, out.loss, leaf.grad, *gradients, *quantizer.usage()]
    for expected, value in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-5)
