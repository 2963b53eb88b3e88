from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cove_dist.quantization import CascadedQuantizer, dead_share, perplexity, search


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int32)


def test_alpha_zero_is_the_identity_to_the_bit() -> None:
    z = torch.randn(64, 8)
    z[0] = -0.0
    z.requires_grad_()
    gradient = torch.randn(64, 8)
    gradient[1] = -0.0
    quantizer = CascadedQuantizer(8, (12, 3), alpha=0.0)
    fused, _, _ = quantizer(z)
    fused.backward(gradient)
    assert torch.equal(bits(fused), bits(z))
    assert torch.equal(bits(z.grad), bits(gradient))
    assert all(torch.equal(e.grad, torch.zeros_like(e)) for e in quantizer.codebooks)


@pytest.mark.parametrize("used", ["fused", "loss"])
@pytest.mark.parametrize("mode", ["task_and_quantization", "quantization"])
def test_every_codebook_always_has_a_gradient(used: str, mode: str) -> None:
    quantizer = CascadedQuantizer(8, (50, 7, 2), codebook_gradient=mode)
    out = quantizer(torch.randn(5, 8))
    getattr(out, used).sum().backward()
    for level, codebook in enumerate(quantizer.codebooks):
        unused = torch.ones(len(codebook), dtype=torch.bool)
        unused[out.codes[:, level]] = False
        if level == 0:
            assert unused.any()
            assert not codebook.grad[unused].any()
        learns = used == "loss" or mode == "task_and_quantization"
        assert codebook.grad[~unused].any() == learns


def test_leading_dimensions_are_kept() -> None:
    quantizer = CascadedQuantizer(8, (20, 5, 2))
    z = torch.randn(3, 4, 8)
    counts, ids = torch.randint(1, 4, (3, 4)), torch.arange(12).view(3, 4)
    out, flat = quantizer(z, counts=counts, ids=ids), quantizer(z.view(12, 8), counts=counts.view(12))
    assert out.codes.shape == (3, 4, 3)
    assert torch.equal(out.fused.view(12, 8), flat.fused)
    assert torch.equal(out.codes.view(12, 3), flat.codes)
    assert torch.equal(out.loss, flat.loss)


def test_no_vectors() -> None:
    quantizer = CascadedQuantizer(8, (20, 5))
    z = torch.empty(0, 8, requires_grad=True)
    fused, codes, loss = quantizer(z)
    (fused.sum() + loss).backward()
    assert fused.shape == (0, 8)
    assert codes.shape == (0, 2)
    assert loss == 0
    assert all(not e.grad.any() for e in quantizer.codebooks)


def test_masked_vectors_weigh_nothing() -> None:
    quantizer = CascadedQuantizer(8, (20, 5))
    z = torch.randn(10, 8)
    mask = torch.arange(10) < 6
    torch.testing.assert_close(quantizer(z, counts=mask).loss, quantizer(z[:6]).loss)
    assert quantizer(z, counts=torch.zeros(10, dtype=torch.int64)).loss == 0


def test_autocast_searches_in_float32() -> None:
    quantizer = CascadedQuantizer(16, (300, 20), init_std=1.0)
    z = (torch.randn(500, 16) * 0.01 + 1).requires_grad_()  # close together: bfloat16 could not tell them apart
    plain = quantizer(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = quantizer(z)
        assert quantizer(z.bfloat16()).fused.dtype == torch.bfloat16
        (out.fused.sum() + out.loss).backward()
    assert torch.equal(out.codes, plain.codes)
    assert torch.equal(out.fused, plain.fused)
    assert out.loss.dtype == torch.float32
    assert z.grad.dtype == torch.float32


def test_float64_input_with_float32_codebooks() -> None:
    quantizer = CascadedQuantizer(8, (20, 5))
    z = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    out = quantizer(z)
    (out.fused.sum() + out.loss).backward()
    assert out.fused.dtype == z.grad.dtype == torch.float64
    assert quantizer.codebooks[0].grad.dtype == torch.float32


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max(self.largest, *sizes, 0)
        return result


def test_memory_does_not_grow_with_vectors_times_codes() -> None:
    quantizer, z = CascadedQuantizer(4, (2000, 30)), torch.randn(20_000, 4, requires_grad=True)
    with LargestTensor() as tracker:
        out = quantizer(z)
        (out.fused.sum() + out.loss).backward()
    assert tracker.largest <= search.WORKSPACE_CPU < len(z) * 2000


def test_chunks_give_what_one_search_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codebook = torch.randint(-3, 4, (301, 5)).double(), torch.randint(-3, 4, (500, 5)).double()
    whole = search.nearest_code(x, codebook)
    monkeypatch.setattr(search, "WORKSPACE_CPU", 1)
    assert torch.equal(search.nearest_code(x, codebook), whole)
    assert torch.equal(whole, torch.cdist(x, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1))


def test_usage_counts_training_passes_only() -> None:
    quantizer = CascadedQuantizer(8, (20, 5))
    z = torch.randn(40, 8)
    codes = torch.cat([quantizer(z[:25]).codes, quantizer(z[25:]).codes])
    quantizer.eval()(z)
    for level, usage in enumerate(quantizer.usage()):
        assert torch.equal(usage, torch.bincount(codes[:, level], minlength=len(usage)))
    assert list(quantizer.state_dict()) == ["codebooks.0", "codebooks.1"]


def test_perplexity_and_dead_share() -> None:
    assert perplexity(torch.tensor([5, 5, 0, 5])).item() == pytest.approx(3)
    assert perplexity(torch.tensor([7, 0, 0])).item() == pytest.approx(1)
    assert perplexity(torch.tensor([3, 1])).item() == pytest.approx((4 / 3) ** 0.75 * 4**0.25)
    assert math.isnan(perplexity(torch.zeros(3)).item())
    assert dead_share(torch.tensor([5, 5, 0, 5])).item() == 0.25


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_random_start_uses_every_code_whatever_its_scale(scale: float) -> None:
    torch.manual_seed(0)
    quantizer = CascadedQuantizer(64, (100, 10), init_std=0.01 * scale)
    quantizer(torch.randn(5000, 64) * 0.01)
    for codebook, usage in zip(quantizer.codebooks, quantizer.usage(), strict=True):
        assert perplexity(usage) > 0.9 * len(usage)
        assert codebook.square().mean().sqrt().item() == pytest.approx(0.01 * scale)


def test_learns_planted_clusters() -> None:
    torch.manual_seed(0)
    centres = torch.randn(8, 16)
    labels = torch.randint(0, 8, (400,))
    z = centres[labels] + 0.05 * torch.randn(400, 16)
    quantizer = CascadedQuantizer(16, (40, 8), init_std=0.1)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    start = quantizer(z).loss.item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = quantizer(z).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * start
    codes = quantizer(z).codes[:, 0]
    purity = sum(torch.bincount(labels[codes == code]).max().item() for code in codes.unique()) / len(z)
    assert purity > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": ()}, r"levels = \[\]"),
        ({"levels": (10, 10)}, r"levels = \[10, 10\].*decrease strictly"),
        ({"levels": (10, 20)}, "decrease strictly"),
        ({"levels": (10, 0)}, "at least 1"),
        ({"dim": 0}, "dim = 0"),
        ({"alpha": -0.1}, "alpha = -0.1"),
        ({"alpha": math.nan}, "alpha = nan"),
        ({"beta": math.inf}, "beta = inf"),
        ({"init_std": 0.0}, "init_std = 0.0"),
        ({"loss_reduction": "max"}, "loss_reduction = 'max': allowed: 'mean', 'sum'"),
        ({"codebook_gradient": "task"}, "allowed: 'task_and_quantization', 'quantization'"),
        ({"learning": "kmeans"}, "learning = 'kmeans': allowed: 'gradient', 'ema'"),
        ({"ema_decay": 1.0}, r"ema_decay = 1\.0: must be between 0 and 1"),
        ({"search": "exact"}, "search = 'exact': allowed: 'auto', 'chunked', 'compiled', 'faiss'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CascadedQuantizer(**{"dim": 8, "levels": (20, 5), **arguments})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": torch.zeros(3, 7)}, r"z is torch.float32 \[3, 7\]: must be floating point \[..., 8\]"),
        ({"z": torch.zeros(3, 8, dtype=torch.int64)}, "z is torch.int64"),
        ({"z": torch.tensor(0.0)}, r"z is torch.float32 \[\]"),
        ({"counts": torch.ones(4, dtype=torch.int64)}, r"counts is torch.int64 \[4\]"),
        ({"counts": torch.ones(3)}, "counts is torch.float32"),
        ({"counts": torch.tensor([1, -2, 1])}, "counts has -2"),
        ({"ids": torch.ones(3, 1, dtype=torch.int64)}, r"ids is torch.int64 \[3, 1\]"),
    ],
)
def test_bad_input(inputs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CascadedQuantizer(8, (20, 5))(**{"z": torch.zeros(3, 8), **inputs})


@pytest.mark.parametrize("level", [None, 0, 1])
def test_nan_shows_in_the_loss(level: int | None) -> None:
    quantizer = CascadedQuantizer(8, (20, 5))
    z = torch.randn(10, 8)
    with torch.no_grad():
        (z if level is None else quantizer.codebooks[level])[-1, 0] = math.nan
    assert quantizer(z).loss.isnan()
