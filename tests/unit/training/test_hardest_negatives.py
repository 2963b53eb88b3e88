"""The hardest of several candidates, against a loop."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.models.cf.bprmf import BPRMF
from cove_dist.models.cf.neumf import NeuMF
from cove_dist.tasks.cf.hardest import HardestOf


@given(st.lists(st.booleans(), max_size=6), st.integers(1, 3), st.integers(2, 4), st.booleans(), st.integers(0, 99))
def test_each_negative_is_the_candidate_that_scores_highest(several, count, candidates, neural, seed):
    torch.manual_seed(seed)
    head = NeuMF(4, hidden_units=[6]) if neural else BPRMF(4)
    width = 4 * head.rows_per_id
    lengths = torch.tensor([count * (candidates if many else 1) for many in several], dtype=torch.int64)
    users, items = torch.randn(len(several), width), torch.randn(int(lengths.sum()), width).round()
    chosen = HardestOf(count, candidates).choose(head, users, items, lengths).tolist()
    head.requires_grad_(False)
    expected, start = [], 0
    for user, many in zip(users, several, strict=True):
        for _ in range(count):
            size = candidates if many else 1
            scores = [float(head(user[None], items[None, i : i + 1].clone())) for i in range(start, start + size)]
            expected.append((start, scores))
            start += size
    assert len(chosen) == len(expected)
    for position, (first, scores) in zip(chosen, expected, strict=True):
        assert scores[position - first] >= max(scores) - 1e-5
