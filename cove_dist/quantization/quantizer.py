"""The cascaded vector quantizer of COVE: fine-to-coarse codes of entity embeddings, learned jointly.

Q. Liu et al., "Co-evolving Vector Quantization for ID-based Recommendation", section 3.

Shapes: ``d`` embedding dimension, ``H`` levels, ``v_i`` codes at level i, ``...`` any leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from cove_dist.quantization.arguments import check_arguments, check_choice, check_input
from cove_dist.quantization.assignment import Cascade, assign, codes_of, count_codes
from cove_dist.quantization.moving_average import MovingAverages
from cove_dist.quantization.observation import Observation, add_observation
from cove_dist.quantization.precision import Convert, at_least_float32, keep_precision, load_precise
from cove_dist.quantization.search import Search
from cove_dist.quantization.statistics import occurrences, shares
from cove_dist.quantization.straight_through import CascadeSettings, StraightThroughCascade
from cove_dist.torch_compat import inside_backward

LossReduction = Literal["mean", "sum"]
CodebookGradient = Literal["task_and_quantization", "quantization"]
Learning = Literal["gradient", "ema"]


class QuantizerOutput(NamedTuple):
    """Output of `CascadedQuantizer`.

    Attributes:
        fused: ``z + alpha * mean_i z_q^(i)`` (Eq. 3 and 4), or with the sum in a residual cascade: ``[..., d]``, dtype
            of the input. For padding, the detached input.
        codes: int64 ``[..., H]``, level 1 (the finest, if not residual) first. For padding: the codes of code 0 of
            level 1, or 0 at every level of a residual cascade.
        loss: Quantization loss of Eq. 6, a scalar mean over vectors.
    """

    fused: torch.Tensor
    codes: torch.Tensor
    loss: torch.Tensor


class CascadedQuantizer(nn.Module):
    """H codebooks, each quantizing the output of the previous one (Eq. 2), trained with the embeddings (section 3.2).

    The codebooks ``codebooks[i]``, ``[v_i, d]``, are the same on every replica. With ``learning="gradient"`` they are
    ordinary parameters, and every backward pass gives each of them a gradient, possibly zeros. With ``"ema"`` they have
    no gradients, not even from the task: a training pass sums the vectors that chose each code, and
    `CodebookMaintenance.after_step` updates the codebooks. They and their statistics then stay in float32 or float64
    even if the module is cast to a lower precision such as bfloat16, in which the changes of a step would be lost.
    `freeze` freezes single codebooks.

    Usage, moving averages and observations are collected in training mode, with and without gradients: as with batch
    normalization, `torch.no_grad` does not stop the collection and `eval` does. A pass that activation checkpointing
    repeats in the backward pass is collected once.

    Random initialization: every row has a random direction and the norm ``init_std * sqrt(d)``, so a vector chooses its
    code by direction only. With rows from a normal distribution, the few shortest attract every vector as soon as their
    scale exceeds that of the embeddings. During training, scale matters here too: keep ``init_std`` at most at the
    standard deviation of the initial embeddings. Perplexity of level 1 of (500, 10)
    over 10,000 normal vectors, d = 64, at the start and after 200 Adam steps on the quantization loss (5,000 vectors a
    step, learning rate a tenth of their standard deviation):

    ================================  =========  =========  =========  =========
    ``init_std`` / vectors' std          0.1         1          3         10
    ================================  =========  =========  =========  =========
    equal norms (this class)          487 → 492  487 → 492  487 → 43   487 → 1
    normal rows                       428 → 491  194 → 385   10 → 11     2 → 1
    ================================  =========  =========  =========  =========

    Args:
        dim: Embedding dimension d.
        levels: Numbers of codes ``v_1 > v_2 > ... > v_H``; any sizes in a residual cascade.
        alpha: Weight of the quantized vectors in the fused one (Eq. 4), >= 0; 0 leaves ``fused`` equal to the input.
        beta: Weight of the commitment term (Eq. 6), >= 0.
        loss_reduction: Reduction over the d components: "sum" as printed in Eq. 6, or "mean".
        codebook_gradient: Whether codes learn from the task and the quantization loss (Figure 1), or only from the
            quantization loss, as in VQ-VAE.
        learning: Update of codebooks: by "gradient", or as moving averages ("ema") of the vectors that chose them.
        ema_decay: Decay of the moving averages per step, in (0, 1).
        search: Search algorithm of level 1 (see `nearest_code`).
        init_std: Standard deviation of a component at random initialization; best that of the initial embeddings.
        cascade: Input of level i >= 2: the "codes" of the previous level, as in the paper, or the "residual" of the
            previous levels. A residual cascade fuses ``z + alpha * sum_i z_q^(i)``: its code vectors sum to an
            approximation of z, while each code vector of the other kind is one. Its levels may have any sizes, level 1
            is the coarsest partition, and its code tuples distinguish far more vectors: they serve as semantic ids.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> quantizer = CascadedQuantizer(dim=16, levels=(32, 8))
        >>> table = torch.nn.Embedding(100, 16)
        >>> out = quantizer(table(torch.tensor([3, 14, 15])))
        >>> out.fused.shape, out.codes.shape, out.loss.shape
        (torch.Size([3, 16]), torch.Size([3, 2]), torch.Size([]))
        >>> (out.fused.sum() + out.loss).backward()  # reaches table and codebooks
        >>> table.weight.grad is not None, all(codebook.grad is not None for codebook in quantizer.codebooks)
        (True, True)
    """

    _usage: torch.Tensor

    def __init__(
        self,
        dim: int,
        levels: Sequence[int],
        alpha: float = 1.0,
        beta: float = 0.25,
        loss_reduction: LossReduction = "mean",
        codebook_gradient: CodebookGradient = "task_and_quantization",
        learning: Learning = "gradient",
        ema_decay: float = 0.99,
        search: Search = "auto",
        init_std: float = 0.01,
        cascade: Cascade = "codes",
    ) -> None:
        super().__init__()
        check_choice("cascade", cascade, Cascade)
        check_arguments(dim, levels, alpha, beta, ema_decay, init_std, falling=cascade == "codes")
        check_choice("loss_reduction", loss_reduction, LossReduction)
        check_choice("codebook_gradient", codebook_gradient, CodebookGradient)
        check_choice("learning", learning, Learning)
        check_choice("search", search, Search)
        self.dim, self.levels, self.init_std, self.search = dim, tuple(levels), init_std, search
        self.settings = CascadeSettings(alpha, beta, loss_reduction, codebook_gradient, cascade)
        by_gradient, dtype = learning == "gradient", torch.get_default_dtype()
        dtype = dtype if by_gradient else at_least_float32(dtype)
        self.codebooks = nn.ParameterList(
            nn.Parameter(torch.empty(size, dim, dtype=dtype), requires_grad=by_gradient) for size in self.levels
        )
        self.moving_averages = None if by_gradient else MovingAverages(self.levels, dim, ema_decay, cascade, dtype)
        if self.moving_averages is not None:
            self.register_load_state_dict_pre_hook(load_precise)
        self.keep_observations = False
        self.observations: list[Observation] = []  # inputs of the training passes since `after_step`, if kept
        self.register_buffer("_usage", torch.zeros(sum(self.levels), dtype=torch.int64), persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Re-initialize at random, from torch's default generator."""
        for codebook in self.codebooks:
            codebook.normal_()
            codebook.mul_(self.init_std * math.sqrt(self.dim) / codebook.norm(dim=1, keepdim=True))
        if self.moving_averages is not None:
            self.moving_averages.reset()

    def freeze(self, level: int, frozen: bool = True) -> None:
        """Freeze a codebook: no gradients, moving averages, k-means start or revival.

        With ``learning="gradient"`` this is ``codebooks[level].requires_grad_(not frozen)``. Call it on every replica,
        before wrapping the module in `DistributedDataParallel`. It is not part of the `state_dict`.

        Args:
            level: Index into ``codebooks``.
            frozen: Whether to freeze or unfreeze it.
        """
        if self.moving_averages is None:
            self.codebooks[level].requires_grad_(not frozen)
        else:
            self.moving_averages.frozen[level] = frozen

    @property
    def frozen(self) -> tuple[bool, ...]:
        """Whether each codebook is frozen (see `freeze`)."""
        if self.moving_averages is None:
            return tuple(not codebook.requires_grad for codebook in self.codebooks)
        return tuple(self.moving_averages.frozen)

    def forward(
        self,
        z: torch.Tensor,
        counts: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
        fuse_only: torch.Tensor | None = None,
    ) -> QuantizerOutput:
        """Quantize every vector. Under autocast the search and the loss stay in float32.

        Args:
            z: Vectors, float ``[..., d]``.
            counts: Occurrences of each vector in the batch, integer or bool ``[...]``, as weights of loss and usage.
                Distinct vectors with counts give the same loss and codebook gradients as all their occurrences.
                Vectors of count 0 are padding: they affect no value, gradient or statistic, even if they hold NaN, and
                their gradient is 0.
            ids: Ids int64 ``[...]``; equal ids must have equal vectors, which are then searched once. Results and
                gradients do not change.
            fuse_only: Mask bool ``[...]`` of vectors that are fused, with gradients, but excluded from the loss, usage
                and codebook statistics, such as the vocabulary of a softmax.

        A NaN in a code, or in a vector that is not padding, makes the loss NaN; checking here would synchronize the
        device at every step.

        Raises:
            ValueError: A shape or dtype is wrong, or a count is negative.
        """
        check_input(z, self.dim, counts, ids=ids, fuse_only=fuse_only)
        rows, shape = z.reshape(-1, self.dim), z.shape[:-1]
        counts, ids, fuse_only = (None if x is None else x.reshape(-1) for x in (counts, ids, fuse_only))
        weights = occurrences(len(rows), counts, fuse_only, rows.device)
        present = None if counts is None else counts.nonzero().flatten()
        if present is None or len(present) == len(rows):
            fused, assignment, loss = self._quantize(rows, weights, ids)
        else:  # remove padding: weighting it by 0 would keep NaN
            taken = [None if x is None else x.index_select(0, present) for x in (weights, ids)]
            found, assignment, loss = self._quantize(rows.index_select(0, present), *taken)
            fused = rows.detach().index_copy(0, present, found)
            by_row = len(self.levels) if self.settings.cascade == "residual" else 1
            for level in range(by_row):
                codes_of_present = assignment[level]
                padded = codes_of_present.new_zeros(len(rows))
                assignment[level] = padded.index_copy_(0, present, codes_of_present)
        codes = codes_of(assignment, self.settings.cascade)
        return QuantizerOutput(fused.view(z.shape), torch.stack(codes, dim=-1).view(*shape, len(codes)), loss)

    def _quantize(
        self, rows: torch.Tensor, weights: torch.Tensor | None, ids: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """Return fused vectors ``[N, d]``, the codes of each level's inputs (see `assign`), and the loss.

        Args:
            rows: Vectors ``[N, d]``.
            weights: Weights in loss and statistics, int64 ``[N]``; None: all 1.
            ids: As in `forward`.
        """
        with torch.autocast(rows.device.type, enabled=False):
            dtype = at_least_float32(torch.promote_types(rows.dtype, self.codebooks[0].dtype))
            flat = rows.to(dtype)
            codebooks = [codebook.to(dtype) for codebook in self.codebooks]
            if self.moving_averages is not None:
                codebooks = [codebook.detach() for codebook in codebooks]
            cascade = self.settings.cascade
            assignment = assign(flat, codebooks, cascade, self.search, ids)
            every = torch.ones_like(assignment[0]) if weights is None else weights
            chosen, of_inputs = count_codes(assignment, self.levels, every, cascade)
            if self.training and not inside_backward():
                self._record(flat, weights, ids, codebooks, assignment, chosen)
            level_weights = [shares(weight, dtype) for weight in of_inputs]
            fused, loss = StraightThroughCascade.apply(flat, assignment, level_weights, self.settings, *codebooks)
        return fused.to(rows.dtype), assignment, loss

    def usage(self) -> tuple[torch.Tensor, ...]:
        """Return this process's counts of each code in training mode (see `CodeUsage`): int64 ``[v_i]`` per level."""
        return self._usage.clone().split(self.levels)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, levels={self.levels}, {self.settings}"

    @torch.no_grad()
    def _record(
        self,
        flat: torch.Tensor,
        weights: torch.Tensor | None,
        ids: torch.Tensor | None,
        codebooks: list[torch.Tensor],
        assignment: list[torch.Tensor],
        chosen: list[torch.Tensor],
    ) -> None:
        """Add a training pass to usage and to the statistics for `CodebookMaintenance`."""
        self._usage += torch.cat(chosen)
        if self.moving_averages is not None:
            self.moving_averages.observe(flat, weights, codebooks, assignment)
        if self.keep_observations:
            add_observation(self.observations, Observation.of(flat, weights, ids))
        else:
            self.observations = []

    def _apply(self, fn: Convert, recurse: bool = True) -> CascadedQuantizer:
        """Convert parameters and buffers; ``to``, ``half``, ``bfloat16`` and ``cuda`` call this."""
        return super()._apply(fn if self.moving_averages is None else keep_precision(fn), recurse)
