"""The cascaded vector quantizer of COVE: fine-to-coarse codes of entity embeddings, learned with them.

Q. Liu et al., "Co-evolving Vector Quantization for ID-based Recommendation", section 3.

Shapes: ``d`` embedding dimension, ``H`` levels, ``v_i`` codes at level i, ``...`` any leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from cove_dist.quantization.arguments import check_choice, check_input, check_shape
from cove_dist.quantization.assignment import Cascade, assign, codes_of, count_codes
from cove_dist.quantization.moving_average import MovingAverages
from cove_dist.quantization.observation import Observation
from cove_dist.quantization.precision import Convert, at_least_float32, keep_precision, load_precise
from cove_dist.quantization.search import Search
from cove_dist.quantization.statistics import occurrences, shares
from cove_dist.quantization.straight_through import CascadeSettings, StraightThroughCascade
from cove_dist.torch_compat import inside_backward

LossReduction = Literal["mean", "sum"]
CodebookGradient = Literal["task_and_quantization", "quantization"]
Learning = Literal["gradient", "ema"]


class QuantizerOutput(NamedTuple):
    """What `CascadedQuantizer` returns.

    Attributes:
        fused: ``[..., d]``, dtype of the input: ``z + alpha * mean_i z_q^(i)`` (Eq. 3 and 4), or their sum in a
            residual cascade. Of padding the input as it is, detached.
        codes: int64 ``[..., H]``, level 1 (the finest, if not residual) first. Of padding: those of code 0 of level 1,
            or 0 at every level of a residual cascade.
        loss: scalar, the quantization loss of Eq. 6, a mean over vectors.
    """

    fused: torch.Tensor
    codes: torch.Tensor
    loss: torch.Tensor


class CascadedQuantizer(nn.Module):
    """H codebooks, each quantizing the output of the one before (Eq. 2), trained with the embeddings (section 3.2).

    The codebooks ``codebooks[i]``, ``[v_i, d]``, are the same on every replica. Where they learn by gradient they are
    ordinary parameters, and every forward pass that is back-propagated gives each of them a gradient, zeros included.
    As moving averages they get none, from the task neither: a training pass adds up what each code was chosen by, and
    `CodebookMaintenance.after_step` moves them. They and their statistics then stay in float32, or float64, in a module
    that is cast to less, such as bfloat16: the changes of a step are too small for it. `freeze` keeps single codebooks
    as they are.

    Usage, moving averages and observations are gathered in training mode, with and without gradients: as with batch
    normalization, `torch.no_grad` does not stop them and `eval` does. A pass that activation checkpointing repeats
    within the backward pass is gathered once.

    Random start: every row has a random direction and the norm ``init_std * sqrt(d)``, so that a vector chooses its
    code by direction alone. Rows drawn from a normal distribution lack this: the few shortest attract every vector as
    soon as their scale exceeds that of the embeddings. Once training moves the codes, scale matters here too: keep
    ``init_std`` at the standard deviation of the embeddings' own start, or below. Perplexity of level 1 of (500, 10)
    over 10,000 normal vectors, d = 64, at the start and after 200 Adam steps on the quantization loss (5,000 vectors a
    step, learning rate a tenth of their standard deviation):

    ================================  =========  =========  =========  =========
    ``init_std`` / vectors' std          0.1         1          3         10
    ================================  =========  =========  =========  =========
    equal norms (this class)          487 → 492  487 → 492  487 → 43   487 → 1
    normal rows                       428 → 491  194 → 385   10 → 11     2 → 1
    ================================  =========  =========  =========  =========

    Args:
        dim: d.
        levels: ``v_1 > v_2 > ... > v_H``; of any sizes in a residual cascade.
        alpha: weight of the quantized vectors in the fused one (Eq. 4), >= 0; 0 leaves ``fused`` equal to the input.
        beta: weight of the commitment term (Eq. 6), >= 0.
        loss_reduction: over the d components: "sum" as Eq. 6 is printed, or "mean".
        codebook_gradient: whether codes learn from the task as well as from the quantization loss (Figure 1), or from
            the quantization loss alone, as in VQ-VAE.
        learning: how codebooks are updated: by "gradient", or as moving averages ("ema") of what chose them.
        ema_decay: the share of the moving averages that stays at each step, in (0, 1).
        search: how level 1 is searched (see `nearest_code`).
        init_std: standard deviation of a component of the random start. Best that of the embeddings' own start.
        cascade: what level i >= 2 quantizes: the "codes" of the level before, as the paper does, or the "residual" that
            the levels before leave. A residual cascade fuses ``z + alpha * sum_i z_q^(i)``: its code vectors add up to
            an approximation of z, while each of the other kind is one. Its levels may have any sizes, level 1 is the
            coarsest partition, and its code tuples tell apart far more vectors: they serve as semantic ids.

    Raises:
        ValueError: an argument is out of its range.
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
        check_shape(dim, levels, alpha, beta, ema_decay, init_std, falling=cascade == "codes")
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
        self.keep_observation = False
        self.observation: Observation | None = None  # the input of the latest training pass, where it is to be kept
        self.register_buffer("_usage", torch.zeros(sum(self.levels), dtype=torch.int64), persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the random start anew, from torch's default generator."""
        for codebook in self.codebooks:
            codebook.normal_()
            codebook.mul_(self.init_std * math.sqrt(self.dim) / codebook.norm(dim=1, keepdim=True))
        if self.moving_averages is not None:
            self.moving_averages.restart()

    def freeze(self, level: int, frozen: bool = True) -> None:
        """Keep a codebook as it is, to the bit: by gradient, moving average, k-means start and revival alike.

        Where codebooks learn by gradient this is ``codebooks[level].requires_grad_(not frozen)``. Call it before the
        module is wrapped in `DistributedDataParallel`, and on every replica. A `state_dict` does not hold it.

        Args:
            level: index into ``codebooks``.
            frozen: False: let it learn again.
        """
        if self.moving_averages is None:
            self.codebooks[level].requires_grad_(not frozen)
        else:
            self.moving_averages.frozen[level] = frozen

    @property
    def frozen(self) -> tuple[bool, ...]:
        """Whether each codebook stays as it is (see `freeze`)."""
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
            z: float ``[..., d]``.
            counts: integer or bool ``[...]``: how often each vector occurs in the batch; weights its loss and usage.
                Distinct vectors with counts give the loss, and its codebook gradients, of all their occurrences. What
                counts 0 is padding, as if it were not there: whatever it holds, NaN included, reaches no value,
                gradient or statistic, and its own gradient is 0.
            ids: int64 ``[...]``: equal ids promise equal vectors, which are then searched once. The result and every
                gradient are those without it.
            fuse_only: bool ``[...]``: vectors to fuse, with the gradients of the fused vector, that have no part in the
                loss, in usage or in what codebooks learn from beside gradients, such as the vocabulary of a softmax.

        A NaN in a code, or in a vector that is no padding, makes the loss NaN; to refuse it here would stall an
        accelerator at every step.

        Raises:
            ValueError: a wrong shape or dtype, or a negative count.
        """
        check_input(z, self.dim, counts, ids=ids, fuse_only=fuse_only)
        rows, shape = z.reshape(-1, self.dim), z.shape[:-1]
        counts, ids, fuse_only = (None if x is None else x.reshape(-1) for x in (counts, ids, fuse_only))
        weights = occurrences(len(rows), counts, fuse_only, rows.device)
        present = None if counts is None else counts.nonzero().flatten()
        if present is None or len(present) == len(rows):
            fused, assignment, loss = self._quantize(rows, weights, ids)
        else:  # leave padding out altogether: to weigh it by 0 would keep its NaN
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
            rows: ``[N, d]``.
            weights: int64 ``[N]``, of each in loss and statistics; None: 1.
            ids: see `forward`.
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
                self._gather(flat, weights, ids, codebooks, assignment, chosen)
            mass = [shares(weight, dtype) for weight in of_inputs]
            fused, loss = StraightThroughCascade.apply(flat, assignment, mass, self.settings, *codebooks)
        return fused.to(rows.dtype), assignment, loss

    def usage(self) -> tuple[torch.Tensor, ...]:
        """How often this process has chosen each code in training mode (see `CodeUsage`): int64 ``[v_i]`` a level."""
        return self._usage.clone().split(self.levels)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, levels={self.levels}, {self.settings}"

    @torch.no_grad()
    def _gather(
        self,
        flat: torch.Tensor,
        weights: torch.Tensor | None,
        ids: torch.Tensor | None,
        codebooks: list[torch.Tensor],
        assignment: list[torch.Tensor],
        chosen: list[torch.Tensor],
    ) -> None:
        """Add a training pass to usage, and to what `CodebookMaintenance` will need."""
        self._usage += torch.cat(chosen)
        if self.moving_averages is not None:
            self.moving_averages.observe(flat, weights, codebooks, assignment)
        self.observation = None
        if self.keep_observation:  # a copy: a slice of all looked-up fields would keep them all
            copies = (None if x is None else x.clone() for x in (weights, ids))
            self.observation = Observation(flat.detach().clone(), *copies)

    def _apply(self, fn: Convert, recurse: bool = True) -> CascadedQuantizer:
        """What ``to``, ``half``, ``bfloat16`` and ``cuda`` call."""
        return super()._apply(fn if self.moving_averages is None else keep_precision(fn), recurse)
