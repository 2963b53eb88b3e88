"""What the tests of models against their formulas share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def random_inputs(
    rows: int, num_fields: int, dim: int, num_dense: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """``fields [B, F, d]``, which require a gradient, and ``dense [B, D]``."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(rows, num_fields, dim, generator=generator, dtype=dtype, requires_grad=True)
    return fields, torch.randn(rows, num_dense, generator=generator, dtype=dtype)


def hidden_layers(mlp: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Linear layers with ReLU, of an MLP without dropout, on one row ``[n]``."""
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            x = torch.clamp(layer.weight @ x + layer.bias, min=0)
    return x


def assert_same_values_and_gradients(
    model: nn.Module, formula: Callable[..., torch.Tensor], *inputs: torch.Tensor
) -> None:
    """``formula(model, *inputs)`` gives the model's logits, and the gradients of every parameter and of every input.

    No gradient may be zero throughout: the comparison would then say nothing.
    """
    learned = {name: p for name, p in model.named_parameters()}
    learned |= {f"input {i}": x for i, x in enumerate(inputs) if x.requires_grad}
    weights = torch.linspace(1, 2, len(inputs[0]), dtype=torch.float64)  # tells the rows apart
    results = []
    for logits in (model(*inputs), formula(model, *inputs)):
        results.append((logits, torch.autograd.grad((logits * weights).sum(), list(learned.values()))))
    torch.testing.assert_close(results[0][0], results[1][0])
    for name, ours, theirs in zip(learned, results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda message, name=name: f"gradient of {name}: {message}")
        assert ours.abs().max() > 0, f"gradient of {name} is zero"
