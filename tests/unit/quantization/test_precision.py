"""Modules of less than float32: moving averages and k-means keep their statistics in float32."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, MaintenanceSettings

LOW = [torch.bfloat16, torch.float16]


def problem(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors around 6 centres away from the origin, and a start near each centre."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 8, generator=random) + 4
    z = centres.repeat(50, 1) + 0.05 * torch.randn(300, 8, generator=random)
    return z.to(dtype), centres + 0.1 * torch.randn(6, 8, generator=random)


@pytest.mark.parametrize("dtype", LOW)
def test_averages_of_a_module_of_less_are_those_of_float32(dtype: torch.dtype) -> None:
    """In bfloat16 itself most changes would be rounded away, and codes stay a tenth away from the centres."""
    z, start = problem(dtype)
    quantizers = [CascadedQuantizer(8, (6,), learning="ema", ema_decay=0.95) for _ in range(2)]
    for quantizer in quantizers:
        with torch.no_grad():
            quantizer.codebooks[0].copy_(start)
    low, full = nn.Sequential(quantizers[0]).to(dtype)[0], quantizers[1]
    for step in range(1, 131):
        out = low(z)
        full(z.float())
        for quantizer in (low, full):
            CodebookMaintenance({"item": quantizer}).after_step(step)
    assert out.fused.dtype == dtype
    assert torch.equal(low.codebooks[0], full.codebooks[0])
    means = torch.stack([z.double()[out.codes[:, 0] == code].mean(dim=0) for code in range(6)])
    torch.testing.assert_close(low.codebooks[0].double(), means, rtol=0, atol=5e-4)


def casts() -> dict:
    return {
        "to": lambda q: q.to(torch.bfloat16),
        "half": lambda q: q.half(),
        "bfloat16": lambda q: nn.Sequential(q).bfloat16()[0],
        "type": lambda q: q.type(torch.float16),
        "to and back": lambda q: q.bfloat16().float(),
        "double and down": lambda q: q.double().half(),
    }


@pytest.mark.parametrize("cast", casts())
def test_a_cast_to_less_leaves_averages_and_their_codebooks_in_float32(cast: str) -> None:
    quantizer = CascadedQuantizer(8, (6, 2), learning="ema")
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    cast_down = casts()[cast](quantizer)
    assert all(x.dtype == torch.float32 for x in cast_down.buffers() if x.is_floating_point())
    torch.testing.assert_close(dict(cast_down.state_dict()), before, rtol=0, atol=0)
    assert all(x.dtype == torch.float64 for x in quantizer.double().buffers() if x.is_floating_point())
    assert all(codebook.dtype == torch.float64 for codebook in quantizer.codebooks)


def test_codebooks_that_learn_by_gradient_are_cast_like_any_parameter() -> None:
    quantizer = CascadedQuantizer(8, (6, 2)).bfloat16()
    assert all(codebook.dtype == torch.bfloat16 for codebook in quantizer.codebooks)


def test_a_default_type_of_less_makes_averages_in_float32() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        averaged, by_gradient = (CascadedQuantizer(8, (6, 2), learning=name) for name in ("ema", "gradient"))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(value.dtype == torch.float32 for value in averaged.state_dict().values())
    assert averaged.moving_averages.step_statistics.dtype == torch.float32
    assert all(codebook.dtype == torch.bfloat16 for codebook in by_gradient.codebooks)


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_goes_there_and_back_to_the_bit(assign: bool) -> None:
    quantizer, other = (CascadedQuantizer(8, (6, 2), learning="ema").bfloat16() for _ in range(2))
    quantizer(torch.randn(50, 8, dtype=torch.bfloat16))
    CodebookMaintenance({"item": quantizer}).after_step(1)
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file), assign=assign)
    torch.testing.assert_close(other.state_dict(), quantizer.state_dict(), rtol=0, atol=0)
    less = {name: value.bfloat16() for name, value in quantizer.state_dict().items()}
    other.load_state_dict(less, assign=assign)
    assert all(value.dtype == torch.float32 for value in other.state_dict().values())
    assert all(value.dtype == torch.bfloat16 for value in less.values())


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_kmeans_starts_a_module_of_less_from_means_in_float32(learning: str, dtype: torch.dtype) -> None:
    """A sum of 500 vectors at 4 in bfloat16 stands still at 1024, a count at 256."""
    z = (torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)) * 0.1).add(
        torch.tensor([4.0, -4.0]).repeat(500).unsqueeze(1)
    )
    quantizer = CascadedQuantizer(8, (2,), learning=learning).to(dtype)
    maintenance = CodebookMaintenance(
        {"item": quantizer}, MaintenanceSettings("kmeans", kmeans_step=1, kmeans_batches=1)
    )
    quantizer(z.to(dtype))
    maintenance.after_step(1)
    means = torch.stack([z.to(dtype).double()[(z[:, 0] > 0) == code].mean(dim=0) for code in range(2)])
    found = quantizer.codebooks[0].detach().double()
    found = found[found[:, 0].argsort()]
    torch.testing.assert_close(found, means, rtol=0, atol=0.02 if learning == "gradient" else 1e-4)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_revival_in_a_module_of_less(learning: str, dtype: torch.dtype) -> None:
    quantizer, z = CascadedQuantizer(8, (30, 4), learning=learning, init_std=5.0).to(dtype), torch.randn(60, 8)
    maintenance = CodebookMaintenance({"item": quantizer}, MaintenanceSettings(revive_every=1))
    quantizer(z.to(dtype))
    assert maintenance.after_step(1)["item_1"] > 0
    assert all(codebook.isfinite().all() for codebook in quantizer.codebooks)
