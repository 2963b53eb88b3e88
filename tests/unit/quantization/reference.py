"""Eq. 1 to 6, and a residual cascade, written out with autograd and ``detach``: what the quantizer must equal."""

from __future__ import annotations

import torch


def quantize(
    z: torch.Tensor,
    codebooks: list[torch.Tensor],
    alpha: float,
    beta: float,
    loss_reduction: str,
    codebook_gradient: str,
    cascade: str = "codes",
    counts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``z [N, d] -> fused [N, d], codes [N, H], loss``."""
    weight = torch.ones(len(z), dtype=z.dtype) if counts is None else counts.to(z.dtype)
    level_input, codes, losses, quantized = z, [], [], []
    for codebook in codebooks:
        distances = (level_input.detach()[:, None, :] - codebook.detach()[None, :, :]).square().sum(dim=-1)
        nearest = torch.stack([torch.nonzero(row == row.min())[0, 0] for row in distances])
        chosen = codebook[nearest]
        squares = (level_input.detach() - chosen).square() + beta * (level_input - chosen.detach()).square()
        losses.append(squares.mean(dim=1) if loss_reduction == "mean" else squares.sum(dim=1))
        task_path = chosen if codebook_gradient == "task_and_quantization" else chosen.detach()
        quantized.append(task_path + (z - z.detach()))
        codes.append(nearest)
        level_input = chosen if cascade == "codes" else level_input - chosen.detach()
    if cascade == "residual":  # code vectors add up to the vector, which is passed through once
        added = sum(each - (z - z.detach()) for each in quantized) + (z - z.detach())
        fused = z + alpha * added
    else:
        fused = z + alpha * sum(quantized) / len(quantized)
    loss = (sum(losses) * weight).sum() / weight.sum()
    return fused, torch.stack(codes, dim=1), loss
