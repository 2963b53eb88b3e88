"""Forward and backward passes of the cascade for given codes (Eq. 3 to 6).

Shapes: ``N`` vectors, ``d`` components, ``H`` levels, ``v_i`` codes at level i, and ``v_0 = N``. In a residual cascade
every level has N inputs instead of ``v_{i-1}``.

In a cascade of codes, the code at level i >= 2 depends only on the code at level i-1. All codes of a vector, its fused
offset and its share of the upper levels' losses are therefore functions of its level-1 code, and only level 1 is as
long as the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from cove_dist.quantization.assignment import Cascade
from cove_dist.quantization.scatter import add_rows


@dataclass(frozen=True)
class CascadeSettings:
    alpha: float
    beta: float
    loss_reduction: str
    codebook_gradient: str
    cascade: Cascade = "codes"


class StraightThroughCascade(torch.autograd.Function):
    """``(z, assignment, level_weights, settings, *codebooks) -> (fused, loss)`` with co-evolving gradients.

    Inputs:
        z: Vectors, float32 or float64 ``[N, d]``.
        assignment: H int64 tensors; the i-th ``[v_{i-1}]`` maps each input of level i to its code.
        level_weights: H tensors; the i-th ``[v_{i-1}]`` holds the loss weights of level i's inputs. Each sums to 1.
        codebooks: H tensors ``[v_i, d]`` of the dtype of z.

    Every codebook that requires a gradient gets one, with zeros for unused rows, so that data-parallel training has no
    unused parameters; frozen codebooks and moving averages get none. With ``alpha = 0`` the forward and backward passes
    of ``fused`` are exactly the identity.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: torch.Tensor,
        assignment: list[torch.Tensor],
        level_weights: list[torch.Tensor],
        settings: CascadeSettings,
        *codebooks: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Residual of each level's input, [N, d] or [v_{i-1}, d]; in a residual cascade the next level's input.
        residual = settings.cascade == "residual"
        residuals: list[torch.Tensor] = []
        for level, (codebook, codes) in enumerate(zip(codebooks, assignment, strict=True)):
            chosen = codebook.index_select(0, codes)
            before = z if level == 0 else residuals[-1] if residual else codebooks[level - 1]
            residuals.append(torch.sub(before, chosen, out=chosen))  # allocating new memory would be slow
        per_component = z.shape[1] if settings.loss_reduction == "mean" else 1
        # the norm reads memory twice as fast as `vecdot`
        squares = [
            torch.linalg.vector_norm(r, dim=1).square_().dot(m) for r, m in zip(residuals, level_weights, strict=True)
        ]
        loss = torch.stack(squares).sum() * ((1 + settings.beta) / per_component)

        if settings.alpha == 0:  # adding zero would turn -0.0 into 0.0
            fused = z.clone()
        elif residual:
            fused = torch.sub(z, residuals[-1]).mul_(settings.alpha).add_(z)  # z - residual: the sum of code vectors
        else:
            offsets = codebooks[-1]  # sum of the code vectors from level i up, for each code of level i
            for codebook, codes in zip(codebooks[-2::-1], assignment[:0:-1], strict=True):
                offsets = codebook + offsets.index_select(0, codes)
            offsets = offsets * (settings.alpha / len(codebooks))
            fused = offsets.index_select(0, assignment[0]).add_(z)

        ctx.save_for_backward(*residuals, *assignment, *level_weights)
        ctx.settings, ctx.per_component, ctx.sizes = settings, per_component, [len(e) for e in codebooks]
        ctx.set_materialize_grads(False)
        return fused, loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_fused: torch.Tensor | None, grad_loss: torch.Tensor | None) -> tuple[Any, ...]:
        settings: CascadeSettings = ctx.settings
        levels, saved = len(ctx.sizes), ctx.saved_tensors
        residuals, assignment, level_weights = saved[:levels], saved[levels : 2 * levels], saved[2 * levels :]
        learns = ctx.needs_input_grad[-levels:]
        if settings.cascade == "residual":
            return _residual_backward(ctx, residuals, assignment, level_weights, learns, grad_fused, grad_loss)
        depth = max((level + 1 for level in range(levels) if learns[level]), default=0)  # no coarser level learns
        grad_codebooks = [residuals[0].new_zeros(size, residuals[0].shape[1]) for size in ctx.sizes[:depth]]
        grad_z = None

        if grad_fused is not None and settings.codebook_gradient == "task_and_quantization" and settings.alpha != 0:
            task, share = grad_fused, settings.alpha / levels
            for grad, codes in zip(grad_codebooks, assignment[:depth], strict=True):
                add_rows(grad, codes, task, alpha=share)
                task, share = grad, 1.0  # a coarse code has the vectors of its fine codes

        if grad_loss is not None:
            scale = grad_loss * (2 / ctx.per_component)
            for level, residual in enumerate(residuals):
                pulls, commits = learns[level], level == 0 or learns[level - 1]
                if not pulls and not commits:
                    continue
                pull = residual * (level_weights[level] * scale).unsqueeze(1)
                if pulls:
                    add_rows(grad_codebooks[level], assignment[level], pull, alpha=-1)
                if not commits:
                    continue
                commitment = pull.mul_(settings.beta)  # on the level's input: z, or the previous codebook
                if level > 0:
                    grad_codebooks[level - 1].add_(commitment)
                else:
                    grad_z = commitment

        if grad_fused is not None:
            straight = 1 + settings.alpha
            if grad_z is not None:
                grad_z.add_(grad_fused, alpha=straight)
            else:
                grad_z = grad_fused if settings.alpha == 0 else grad_fused * straight
        kept = (grad_codebooks[level] if learns[level] else None for level in range(levels))
        return grad_z, None, None, None, *kept


def _residual_backward(
    ctx: Any,
    residuals: tuple[torch.Tensor, ...],
    assignment: tuple[torch.Tensor, ...],
    level_weights: tuple[torch.Tensor, ...],
    learns: tuple[bool, ...],
    grad_fused: torch.Tensor | None,
    grad_loss: torch.Tensor | None,
) -> tuple[Any, ...]:
    """Compute the gradients of a residual cascade: every level has N inputs, and its commitment term acts on z."""
    settings: CascadeSettings = ctx.settings
    like = residuals[0]
    grads = [
        like.new_zeros(size, like.shape[1]) if wanted else None for size, wanted in zip(ctx.sizes, learns, strict=True)
    ]
    grad_z = None if grad_fused is None else grad_fused * (1 + settings.alpha) if settings.alpha else grad_fused
    task = None
    if grad_fused is not None and settings.codebook_gradient == "task_and_quantization" and settings.alpha:
        task = grad_fused * settings.alpha
    if grad_loss is None:
        for grad, codes in zip(grads, assignment, strict=True):
            if grad is not None and task is not None:
                add_rows(grad, codes, task)
        return grad_z, None, None, None, *grads
    scale = grad_loss * (2 / ctx.per_component)
    committed, pull = torch.zeros_like(like), torch.empty_like(like)
    for grad, codes, residual, weight in zip(grads, assignment, residuals, level_weights, strict=True):
        torch.mul(residual, (weight * scale).unsqueeze(1), out=pull)
        committed.add_(pull, alpha=settings.beta)
        if grad is not None:
            add_rows(grad, codes, pull if task is None else pull.sub_(task), alpha=-1)
    grad_z = committed if grad_z is None else committed.add_(grad_z)
    return grad_z, None, None, None, *grads
