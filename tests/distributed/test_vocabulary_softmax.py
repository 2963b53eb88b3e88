"""The vocabulary-parallel softmax on real ranks against torch's cross-entropy over the whole vocabulary in float64."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from cove_dist.distributed import Collectives, process_group
from cove_dist.losses import Vocabulary, vocabulary_cross_entropy
from tests.distributed.ranks import run_ranks

POSITIONS, ROWS, DIM = 37, 101, 12


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(POSITIONS, DIM, generator=generator) * 3
    rows = torch.randn(ROWS, DIM, generator=generator) * 2
    targets = torch.randint(ROWS, (POSITIONS,), generator=generator)
    weights = torch.rand(POSITIONS, generator=generator)
    return hidden, rows, targets, weights


def groups_of(rows: torch.Tensor, grouped: bool) -> torch.Tensor | None:
    """Of rows by their number; no row is of group 0."""
    return 1 + rows * 7 % 3 if grouped else None


def groups_of_positions(targets: torch.Tensor, grouped: bool) -> torch.Tensor | None:
    """Those of the targets, but for every fifth position another one, as near ties of codes may be rounded."""
    if not grouped:
        return None
    return groups_of(targets + (torch.arange(len(targets)) % 5 == 0), True)


def expected(grouped: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    hidden, rows, targets, weights = inputs()
    hidden, rows = (x.double().requires_grad_() for x in (hidden, rows))
    scores = hidden @ rows.T
    if grouped:
        rows_of_all = torch.arange(ROWS)
        other = groups_of_positions(targets, True)[:, None] != groups_of(rows_of_all, True)
        assert other[torch.arange(POSITIONS), targets].any()
        scores = scores.masked_fill(other & (rows_of_all != targets[:, None]), -torch.inf)
    loss = F.cross_entropy(scores, targets, reduction="none") @ weights.double()
    (3 * loss).backward()
    return loss.detach(), hidden.grad, rows.grad


def on_this_rank(shares: list[int], blocks: list[int], workspace: int, grouped: bool) -> tuple[float, list, list]:
    """Loss, gradient of the hidden states and of the rows, all of this rank's part alone."""
    hidden, rows, targets, weights = inputs()
    groups = groups_of_positions(targets, grouped)
    with process_group("cpu") as context:
        rank = context.rank
        part = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
        first = sum(blocks[:rank])
        own_hidden = hidden[part].requires_grad_()
        own_rows = rows[first : first + blocks[rank]].requires_grad_()
        loss = vocabulary_cross_entropy(
            own_hidden,
            targets[part],
            weights[part],
            Vocabulary(own_rows, first, groups_of(torch.arange(first, first + blocks[rank]), grouped)),
            Collectives(dist.group.WORLD),
            workspace,
            None if groups is None else groups[part],
        )
        (3 * loss).backward()
        return loss.item(), own_hidden.grad.tolist(), own_rows.grad.tolist()


@pytest.mark.parametrize(
    ("shares", "blocks"),
    [([37], [101]), ([20, 17], [51, 50]), ([37, 0], [51, 50]), ([10, 0, 20, 7], [51, 50, 0, 0])],
    ids=["1", "2", "2-uneven", "4-with-empty-parts"],
)
@pytest.mark.parametrize("grouped", [False, True], ids=["all", "grouped"])
@pytest.mark.parametrize("workspace", [500, 1 << 20], ids=["chunked", "whole"])
def test_it_is_the_dense_softmax_in_value_and_gradient(
    shares: list[int], blocks: list[int], workspace: int, grouped: bool
) -> None:
    loss, hidden_grad, rows_grad = expected(grouped)
    losses, hidden_grads, rows_grads = zip(
        *run_ranks(len(shares), on_this_rank, shares, blocks, workspace, grouped), strict=True
    )
    assert sum(losses) == pytest.approx(loss.item(), rel=1e-5)
    for found, true in ((hidden_grads, hidden_grad), (rows_grads, rows_grad)):
        whole = torch.tensor([row for part in found for row in part], dtype=torch.float64)
        torch.testing.assert_close(whole, true, rtol=1e-5, atol=1e-5)
