"""Softmax cross-entropy against a vocabulary whose rows are distributed over ranks.

As in Megatron-LM (Shoeybi et al., 2019, section 3): every rank scores all positions against its rows; ranks exchange
the hidden states and three numbers per position, never scores. Gradients are computed together with the loss, so
scores are computed once, and at most a workspace of them is in memory.

Shapes: ``P`` positions of this rank, ``Q`` of all ranks, ``n`` rows of this rank, ``d`` embedding dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from cove_dist.distributed import Collectives

WORKSPACE_CPU = 1 << 19  # maximum number of scores in memory; on CPU they should fit the cache
WORKSPACE_ACCELERATOR = 1 << 26
FEWEST = 32  # minimum positions per chunk: fewer make matrix products inefficient


class Vocabulary(NamedTuple):
    """This rank's rows of the vocabulary.

    Attributes:
        rows: Rows, float ``[n, d]``; n may be 0.
        first: Index of the first row in the whole vocabulary.
        groups: Group of each row, int64 ``[n]``, if positions are scored only against rows of one group; else None.
    """

    rows: torch.Tensor
    first: int
    groups: torch.Tensor | None = None


def vocabulary_cross_entropy(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    vocabulary: Vocabulary,
    ranks: Collectives,
    workspace: int | None = None,
    groups: torch.Tensor | None = None,
    precision: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Compute ``sum_p weights[p] · -log softmax(hidden[p] · rows)[targets[p]]`` over this rank's positions. Collective.

    Every rank must differentiate its result, multiplied by the same number. ``rows`` then gets the gradient of the sum
    over all ranks' positions.

    Args:
        hidden: Hidden states, float ``[P, d]``; P may differ between ranks, and be 0.
        targets: Indices in the whole vocabulary, int64 ``[P]``.
        weights: Weights of the positions, float ``[P]``, without gradients.
        vocabulary: This rank's part of the vocabulary.
        ranks: Ranks that hold the parts.
        workspace: Maximum number of scores in memory; None: depends on the device.
        groups: Group of rows that each position is scored against, that of its target, int64 ``[P]``; None: all rows.
            The target is scored even if its row is of another group: codes are found once for positions and once for
            rows, and near ties may be rounded differently.
        precision: Type of the factors of matrix products. Exponentials and sums are float32.

    Returns:
        The loss, a float32 scalar.
    """
    groups = torch.zeros_like(targets) if groups is None else groups
    inputs = hidden, vocabulary.rows, targets, groups, weights
    return _CrossEntropy.apply(*inputs, vocabulary, ranks, workspace, precision)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, rows, targets, groups, weights, vocabulary, ranks, workspace, precision):
        own = len(hidden)
        longest, most_rows = own, len(rows)
        if ranks.size > 1:  # waits for the device: the sizes of what is gathered
            longest, most_rows = ranks.max(torch.tensor([own, len(rows)], device=hidden.device)).tolist()
        inputs = hidden.float(), targets, groups, weights.float()
        gathered = (ranks.gather_padded(x, 0, longest) for x in inputs)  # padding has weight 0
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        chunk = _positions_at_a_time(workspace, most_rows, hidden.device)
        own_rows = Vocabulary(rows.float(), vocabulary.first, vocabulary.groups)
        loss, hidden_grad, rows_grad = _all_positions(*gathered, own_rows, ranks, chunk, precision, wanted)
        if wanted:
            ctx.save_for_backward(ranks.scatter_sum(hidden_grad)[:own], rows_grad)
            ctx.dtypes = hidden.dtype, rows.dtype
        return loss[ranks.rank * longest :][:own].sum()

    @staticmethod
    def backward(ctx, scale):
        hidden_grad, rows_grad = ctx.saved_tensors
        hidden_type, rows_type = ctx.dtypes
        return (hidden_grad * scale).to(hidden_type), (rows_grad * scale).to(rows_type), *[None] * 7


def _positions_at_a_time(workspace: int | None, rows: int, device: torch.device) -> int:
    """Return the number of positions per chunk; the same on all ranks if ``rows`` is their maximum."""
    if workspace is not None:
        return max(1, workspace // max(rows, 1))
    return max(FEWEST, (WORKSPACE_CPU if device.type == "cpu" else WORKSPACE_ACCELERATOR) // max(rows, 1))


def _all_positions(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    groups: torch.Tensor,
    weights: torch.Tensor,
    vocabulary: Vocabulary,
    ranks: Collectives,
    chunk: int,
    precision: torch.dtype,
    with_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weighted losses ``[Q]``, this rank's part of the gradient of ``hidden [Q, d]``, and that of ``rows``."""
    hidden, rows = hidden.to(precision), vocabulary.rows.to(precision)
    hidden_grad, rows_grad = (torch.zeros_like(x, dtype=torch.float32) for x in (hidden, rows))
    losses = torch.empty_like(weights)
    for start in range(0, len(hidden), chunk):
        part = slice(start, start + chunk)
        scores = (hidden[part] @ rows.T).float()
        place = targets[part] - vocabulary.first
        here = (place >= 0) & (place < len(rows))
        place = place.clamp(0, max(len(rows) - 1, 0)).unsqueeze(1)
        if vocabulary.groups is not None and len(rows):
            other = groups[part][:, None] != vocabulary.groups
            other &= (weights[part] != 0)[:, None]  # padding keeps all: it needs a sum
            other.scatter_(1, place, other.gather(1, place) & ~here[:, None])  # the target stays, whatever its group
            scores.masked_fill_(other, -torch.inf)
        true = scores.gather(1, place).squeeze(1).where(here, 0) if len(rows) else scores.new_zeros(len(scores))
        top = ranks.max(scores.amax(dim=1) if len(rows) else scores.new_full((len(scores),), -torch.inf))
        exponentials = scores.sub_(top[:, None]).exp_()
        total, true = ranks.sum(torch.stack([exponentials.sum(dim=1), true]))
        losses[part] = weights[part] * (total.log() + top - true)
        if with_gradient:
            probabilities = exponentials.mul_((weights[part] / total)[:, None])
            if len(rows):
                one = (weights[part] * here).unsqueeze(1)
                probabilities.scatter_(1, place, probabilities.gather(1, place) - one)
            probabilities = probabilities.to(precision)
            hidden_grad[part] = probabilities @ rows
            rows_grad += probabilities.T @ hidden[part]
    return losses, hidden_grad, rows_grad
