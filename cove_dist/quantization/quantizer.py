"""The cascaded vector quantizer of COVE: fine-to-coarse codes of entity embeddings, learned with them.

Q. Liu et al., "Co-evolving Vector Quantization for ID-based Recommendation", section 3.

Shapes: ``d`` embedding dimension, ``H`` levels, ``v_i`` codes at level i, ``...`` any leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import nn

from cove_dist.quantization.moving_average import MovingAverages
from cove_dist.quantization.observation import Observation
from cove_dist.quantization.search import Search, nearest_code
from cove_dist.quantization.straight_through import CascadeSettings, StraightThroughCascade

LossReduction = Literal["mean", "sum"]
CodebookGradient = Literal["task_and_quantization", "quantization"]
Learning = Literal["gradient", "ema"]

# Searching repeats once pays up to about this share of distinct ids; above it, gathering and spreading cost more.
_REPEATS_PAY_TO = 0.75


class QuantizerOutput(NamedTuple):
    """What `CascadedQuantizer` returns.

    Attributes:
        fused: ``[..., d]``, dtype of the input: ``z + alpha * mean_i z_q^(i)`` (Eq. 3 and 4).
        codes: int64 ``[..., H]``, level 1 (the finest) first.
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
    `CodebookUpkeep.after_step` moves them.

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
        levels: ``v_1 > v_2 > ... > v_H``.
        alpha: weight of the quantized vectors in the fused one (Eq. 4), >= 0; 0 leaves ``fused`` equal to the input.
        beta: weight of the commitment term (Eq. 6), >= 0.
        loss_reduction: over the d components: "sum" as Eq. 6 is printed, or "mean".
        codebook_gradient: whether codes learn from the task as well as from the quantization loss (Figure 1), or from
            the quantization loss alone, as in VQ-VAE.
        learning: how codebooks are updated: by "gradient", or as moving averages ("ema") of what chose them.
        ema_decay: the share of the moving averages that stays at each step, in (0, 1).
        search: how level 1 is searched (see `nearest_code`).
        init_std: standard deviation of a component of the random start. Best that of the embeddings' own start.

    Raises:
        ValueError: an argument is out of its range.
    """

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
    ) -> None:
        super().__init__()
        _check(dim, levels, alpha, beta, ema_decay, init_std)
        _check_choice("loss_reduction", loss_reduction, LossReduction)
        _check_choice("codebook_gradient", codebook_gradient, CodebookGradient)
        _check_choice("learning", learning, Learning)
        _check_choice("search", search, Search)
        self.dim, self.levels, self.init_std, self.search = dim, tuple(levels), init_std, search
        self.settings = CascadeSettings(alpha, beta, loss_reduction, codebook_gradient)
        shapes = [torch.empty(size, dim) for size in self.levels]
        self.codebooks = nn.ParameterList(nn.Parameter(e, requires_grad=learning == "gradient") for e in shapes)
        self.moving_averages = MovingAverages(self.levels, dim, ema_decay) if learning == "ema" else None
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

    def forward(
        self, z: torch.Tensor, counts: torch.Tensor | None = None, ids: torch.Tensor | None = None
    ) -> QuantizerOutput:
        """Quantize every vector. Under autocast the search and the loss stay in float32.

        Args:
            z: float ``[..., d]``.
            counts: integer or bool ``[...]``: how often each vector occurs in the batch; weights its loss and usage.
                Distinct vectors with counts give the loss, and its codebook gradients, of all their occurrences; a
                mask leaves padding out.
            ids: int64 ``[...]``: equal ids promise equal vectors, which are then searched once. The result and every
                gradient are those without it.

        A NaN in ``z`` or in a code makes the loss NaN; to refuse it here would stall an accelerator at every step.

        Raises:
            ValueError: a wrong shape or dtype, or a negative count.
        """
        self._check_input(z, counts, ids)
        with torch.autocast(z.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(z.dtype, self.codebooks[0].dtype), torch.float32)
            flat = z.reshape(-1, self.dim).to(dtype)
            codebooks = [codebook.to(dtype) for codebook in self.codebooks]
            first = self._search(flat, codebooks[0], ids)
            # Level i >= 2 quantizes rows of the codebook before it: a table of parents, whatever the batch.
            parents = [nearest_code(fine, coarse) for fine, coarse in pairwise(codebooks)]
            assignment = [first, *parents]
            chosen = self._count(assignment, counts)
            if self.training:
                self._observe(flat, counts, ids, first)
            mass = [_share(weight, dtype) for weight in (_weights(first, counts), *chosen[:-1])]
            fused, loss = StraightThroughCascade.apply(flat, assignment, mass, self.settings, *codebooks)
        codes = [first]
        for parent in parents:
            codes.append(parent.index_select(0, codes[-1]))
        return QuantizerOutput(
            fused.to(z.dtype).view(z.shape), torch.stack(codes, dim=-1).view(*z.shape[:-1], len(codes)), loss
        )

    def usage(self) -> tuple[torch.Tensor, ...]:
        """How often this process has chosen each code in training mode (see `UsageSince`): int64 ``[v_i]`` a level."""
        return self._usage.clone().split(self.levels)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, levels={self.levels}, {self.settings}"

    @torch.no_grad()
    def _search(self, flat: torch.Tensor, codebook: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
        search = partial(nearest_code, codebook=codebook, backend=self.search)
        if ids is None:
            return search(flat)
        distinct, inverse = torch.unique(ids.reshape(-1), return_inverse=True)
        if len(distinct) > _REPEATS_PAY_TO * len(inverse):
            return search(flat)
        occurrence = torch.empty_like(inverse[: len(distinct)])
        occurrence.scatter_(0, inverse, torch.arange(len(inverse), device=inverse.device))
        return search(flat.index_select(0, occurrence)).index_select(0, inverse)

    @torch.no_grad()
    def _count(self, assignment: list[torch.Tensor], counts: torch.Tensor | None) -> list[torch.Tensor]:
        """How many vectors chose each code: int64 ``[v_i]`` a level."""
        weight = _weights(assignment[0], counts)
        chosen = []
        for codes, size in zip(assignment, self.levels, strict=True):
            weight = weight.new_zeros(size).index_add_(0, codes, weight)
            chosen.append(weight)
        if self.training:
            self._usage += torch.cat(chosen)
        return chosen

    @torch.no_grad()
    def _observe(
        self, flat: torch.Tensor, counts: torch.Tensor | None, ids: torch.Tensor | None, codes: torch.Tensor
    ) -> None:
        """Gather what `CodebookUpkeep` will need of a training pass."""
        counts = None if counts is None else counts.reshape(-1).long()
        ids = None if ids is None else ids.reshape(-1)
        if self.moving_averages is not None:
            self.moving_averages.observe(flat, counts, codes)
        self.observation = None
        if self.keep_observation:  # a copy: a slice of all looked-up fields would keep them all
            copies = (None if x is None else x.clone() for x in (counts, ids))
            self.observation = Observation(flat.detach().clone(), *copies)

    def _check_input(self, z: torch.Tensor, counts: torch.Tensor | None, ids: torch.Tensor | None) -> None:
        if not z.is_floating_point() or z.dim() == 0 or z.shape[-1] != self.dim:
            raise ValueError(f"z is {z.dtype} {list(z.shape)}: must be floating point [..., {self.dim}]")
        for name, tensor in (("counts", counts), ("ids", ids)):
            if tensor is not None and (tensor.shape != z.shape[:-1] or tensor.is_floating_point()):
                raise ValueError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}: must be integers, one for each vector:"
                    f" {list(z.shape[:-1])}"
                )
        if counts is not None and (counts < 0).any():
            raise ValueError(f"counts has {int(counts.min())}: must not be negative")


def _weights(codes: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
    return torch.ones_like(codes) if counts is None else counts.reshape(-1).long()


def _share(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights that sum to 1, or to 0 where there is nothing to weigh: an empty batch has loss 0."""
    return weight.to(dtype) / weight.sum().clamp(min=1)


def _check(dim: int, levels: Sequence[int], alpha: float, beta: float, ema_decay: float, init_std: float) -> None:
    if dim < 1:
        raise ValueError(f"dim = {dim}: must be at least 1")
    if not levels or min(levels) < 1 or any(fine <= coarse for fine, coarse in pairwise(levels)):
        raise ValueError(
            f"levels = {list(levels)}: must be sizes of at least 1 that fall strictly from fine to coarse, such as"
            " (100, 10)"
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value}: must be finite and not negative")
    if not 0 < ema_decay < 1:
        raise ValueError(f"ema_decay = {ema_decay}: must be between 0 and 1")
    if not 0 < init_std < math.inf:
        raise ValueError(f"init_std = {init_std}: must be finite and positive")


def _check_choice(name: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} = {value!r}: allowed: {', '.join(map(repr, get_args(choices)))}")
