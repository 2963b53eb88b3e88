"""Assignment of vectors to codes at every level, for both kinds of cascade.

- "codes": level i >= 2 quantizes the code vectors of the previous level (Eq. 2). Its codes are a table of parents.
- "residual": level i >= 2 quantizes the residual of the previous levels, ``z - sum of code vectors``, as in
  Chen et al., "Approximate nearest neighbor search by residual vector quantization" (Sensors 2010).

Shapes: ``N`` vectors, ``d`` components, ``v_i`` codes at level i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch

from cove_dist.quantization.search import Search, nearest_code

Cascade = Literal["codes", "residual"]
Assign = Callable[[torch.Tensor], list[torch.Tensor]]

# Searching only distinct ids is faster up to about this share of distinct ids; above it, gather and scatter cost more.
_REPEATS_PAY_TO = 0.75


@torch.no_grad()
def assign(
    rows: torch.Tensor, codebooks: Sequence[torch.Tensor], cascade: Cascade, search: Search, ids: torch.Tensor | None
) -> list[torch.Tensor]:
    """Map each input of every level to its code.

    Args:
        rows: Inputs of level 1, ``[N, d]``.
        codebooks: Codebooks ``[v_i, d]``.
        cascade: Kind of cascade; see the module.
        search: Search of the levels with one input per row; see `nearest_code`.
        ids: Ids int64 ``[N]`` or None; equal ids must have equal rows, which are then searched once.

    Returns:
        Int64 tensors: for a residual cascade H times ``[N]``; otherwise ``[N]``, then the parents ``[v_{i-1}]``.
    """
    if cascade == "residual":
        return _over_distinct(rows, ids, lambda vectors: _residual_codes(vectors, codebooks, search))
    [first] = _over_distinct(rows, ids, lambda vectors: [nearest_code(vectors, codebooks[0], search)])
    return [first, *(nearest_code(fine, coarse) for fine, coarse in pairwise(codebooks))]


def codes_of(assignment: Sequence[torch.Tensor], cascade: Cascade) -> list[torch.Tensor]:
    """Return the codes ``[N]`` of every level from an assignment."""
    if cascade == "residual":
        return list(assignment)
    codes = [assignment[0]]
    for parent in assignment[1:]:
        codes.append(parent.index_select(0, codes[-1]))
    return codes


def count_codes(
    assignment: Sequence[torch.Tensor], sizes: Sequence[int], weights: torch.Tensor, cascade: Cascade
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Count how often each code was chosen, and compute the weights of each level's inputs.

    Args:
        assignment: Codes from `assign`.
        sizes: Numbers of codes ``v_i``.
        weights: Weights of the rows, int64 ``[N]``.
        cascade: Kind of cascade; see the module.

    Returns:
        Counts int64 ``[v_i]`` per level, and the weights of its inputs, int64 ``[N]`` or ``[v_{i-1}]``.
    """
    chosen: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []
    for codes, size in zip(assignment, sizes, strict=True):
        inputs.append(weights if not chosen or cascade == "residual" else chosen[-1])
        chosen.append(weights.new_zeros(size).index_add_(0, codes, inputs[-1]))
    return chosen, inputs


def _residual_codes(rows: torch.Tensor, codebooks: Sequence[torch.Tensor], search: Search) -> list[torch.Tensor]:
    codes = [nearest_code(rows, codebooks[0], search)]
    for before, codebook in pairwise(codebooks):
        rows = rows - before.index_select(0, codes[-1])
        codes.append(nearest_code(rows, codebook, search))
    return codes


def _over_distinct(rows: torch.Tensor, ids: torch.Tensor | None, assign: Assign) -> list[torch.Tensor]:
    """Apply ``assign`` to one row per id, if there are enough repeats for that to be faster.

    Not on an accelerator: to count the distinct ids the host would wait for the device at every step.
    """
    if ids is None or rows.device.type != "cpu" or (ids.diff() > 0).all():  # rising ids, as of a table, are distinct
        return assign(rows)
    distinct, inverse = torch.unique(ids, return_inverse=True)
    if len(distinct) > _REPEATS_PAY_TO * len(inverse):
        return assign(rows)
    occurrence = torch.empty_like(inverse[: len(distinct)])
    occurrence.scatter_(0, inverse, torch.arange(len(inverse), device=inverse.device))
    return [codes.index_select(0, inverse) for codes in assign(rows.index_select(0, occurrence))]
