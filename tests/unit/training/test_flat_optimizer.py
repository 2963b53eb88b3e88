"""An optimizer of optimizers that steps the innermost ones directly, next to torchrec's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import profile
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper

from cove_dist.training.optimization import ClippedOptimizer, FlatOptimizer

STEPS = 3


def trained(kind: type[CombinedOptimizer], norm: float | None) -> tuple[dict[str, Any], CombinedOptimizer]:
    """Return the state after some steps of nested optimizers, one of which has no parameters."""
    tables, dense = (nn.Parameter(torch.ones(4, width)) for width in (3, 2))
    parts = [
        ("tables", KeyedOptimizerWrapper({"weight": tables}, lambda weights: torch.optim.Adam(weights, lr=0.1))),
        ("dense", KeyedOptimizerWrapper({"weight": dense}, lambda weights: torch.optim.SGD(weights, lr=0.5))),
    ]
    inner = CombinedOptimizer(parts) if norm is None else ClippedOptimizer(parts, norm)
    optimizer = kind([("fused", CombinedOptimizer([])), ("replicated", inner)])
    for step in range(STEPS):
        optimizer.zero_grad()
        ((tables.sum() + dense.square().sum()) * (step + 1)).backward()
        optimizer.step()
    return optimizer.state_dict() | {"tables": tables.detach(), "dense": dense.detach()}, optimizer


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, dict):
        return [tensor for key in sorted(value, key=str) for tensor in tensors(value[key])]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("norm", [None, 0.5], ids=["plain", "clipped"])
def test_parameters_and_state_are_those_of_nested_optimizers(norm: float | None) -> None:
    (flat, _), (nested, _) = (trained(kind, norm) for kind in (FlatOptimizer, CombinedOptimizer))
    assert flat["state"].keys() == nested["state"].keys()
    pairs = list(zip(tensors(flat), tensors(nested), strict=True))
    assert len(pairs) == 5  # parameters; step and moments of Adam
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_only_optimizers_with_parameters_are_stepped() -> None:
    _, optimizer = trained(FlatOptimizer, None)
    with profile() as recorded:
        optimizer.step()
    steps = sorted(event.key for event in recorded.key_averages() if event.key.startswith("Optimizer.step"))
    assert steps == [f"Optimizer.step#{name}.step" for name in ("Adam", "FlatOptimizer", "SGD")]
