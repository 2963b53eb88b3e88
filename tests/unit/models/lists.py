"""Batches of lists, and formulas that the tests of list models share, written with loops."""

from __future__ import annotations

import torch
from torch import nn

D = 8
HEADS = 2


def batch(lengths: list[int], slots: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, T, d]`` float64, of which padding is not zero, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(len(lengths), slots, D, generator=generator, dtype=torch.float64)
    return items, torch.arange(slots) < torch.tensor(lengths).unsqueeze(1)


def ready(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, without dropout, with weights large enough for every part to show in the result."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return model


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + layer.bias


def normalized(layer: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Of one list ``[n, d]``, position by position and head by head."""
    result = torch.zeros_like(v)
    width = D // HEADS
    for t in range(len(q)):
        last = t + 1 if causal else len(k)
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            scores = torch.stack([q[t, part] @ k[s, part] for s in range(last)]) / width**0.5
            weights = scores.exp() / scores.exp().sum()
            result[t, part] = sum(weights[s] * v[s, part] for s in range(last))
    return result


def self_attention(layer: nn.Module, x: torch.Tensor, causal: bool) -> torch.Tensor:
    weights, biases = layer.projection.weight, layer.projection.bias
    q, k, v = (x @ weights[i * D : (i + 1) * D].T + biases[i * D : (i + 1) * D] for i in range(3))
    joined = attention(q, k, v, causal)
    return linear(layer.output, joined) if isinstance(layer.output, nn.Linear) else joined


def bert(encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """BERT's encoder over one list ``[n, d]``, and the transform behind it."""
    x = normalized(encoder.norm, x)
    for block in encoder.blocks:
        x = normalized(block.attention_norm, x + self_attention(block.attention, x, causal=False))
        inner = gelu(linear(block.feed_forward[0], x))
        assert inner.shape[1] == 4 * D
        x = normalized(block.feed_forward_norm, x + linear(block.feed_forward[2], inner))
    return normalized(encoder.transform[2], gelu(linear(encoder.transform[0], x)))
