"""Metrics of continued lists against a plain reading of their definitions, in loops."""

from __future__ import annotations

import itertools
import math
import random
from itertools import pairwise

import pytest
import torch
from sklearn.metrics import ndcg_score

from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.sequential import NOTHING, ListCompletion, merge_depth_first

UNSEEN = 30


def merged_plainly(positions: list[list[int]], count: int) -> list[int]:
    candidates: list[int] = []
    for depth in range(max(map(len, positions))):
        for ranked in positions:
            if ranked[depth] not in candidates:
                candidates.append(ranked[depth])
    return candidates[:count]


def plain_metrics(
    lists: list[tuple[list[int], list[int]]], ks: tuple[int, ...], unseen: int = UNSEEN
) -> dict[str, float]:
    """Of (candidates, targets); targets from `unseen` on are all different."""
    values: dict[str, list[float]] = {}
    for candidates, targets in lists:
        wanted = {t if t < unseen else (t, i) for i, t in enumerate(targets)}
        for k in ks:
            gains = [1 / math.log2(rank + 2) for rank, item in enumerate(candidates[:k]) if item in wanted]
            ideal = [1 / math.log2(rank + 2) for rank in range(len(targets))]
            if len(targets) >= k:
                values.setdefault(f"paper_hr@{k}", []).append(float(bool(gains)))
                values.setdefault(f"paper_ndcg@{k}", []).append(sum(gains) / sum(ideal))
            values.setdefault(f"recall@{k}", []).append(len(gains) / len(wanted))
            best = [1 / math.log2(rank + 2) for rank in range(min(k, len(wanted)))]
            values.setdefault(f"ndcg@{k}", []).append(sum(gains) / sum(best))
    return {name: sum(found) / len(found) for name, found in values.items()}


def padded(rows: list[list[int]], width: int) -> torch.Tensor:
    return torch.tensor([row + [NOTHING] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("seed", range(5))
def test_merging_is_depth_first_and_skips_repeats(seed: int) -> None:
    rng = random.Random(seed)
    lists = [[rng.sample(range(12), 6) for _ in range(rng.randrange(1, 6))] for _ in range(20)]
    ranked = torch.full((20, 5, 6), NOTHING)
    for row, positions in enumerate(lists):
        ranked[row, : len(positions)] = torch.tensor(positions)
    for count in (1, 5, 10):
        expected = padded([merged_plainly(positions, count) for positions in lists], count)
        assert torch.equal(merge_depth_first(ranked, count), expected)


def sample(seed: int) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(seed)
    return [
        (rng.sample(range(UNSEEN), rng.choice([3, 10])), [rng.randrange(UNSEEN + 2) % (UNSEEN + 1) for _ in range(n)])
        for n in (rng.randrange(1, 14) for _ in range(200))
    ]


@pytest.mark.parametrize("ks", [(1,), (5, 10)])
def test_metrics_are_those_of_the_plain_definitions(ks: tuple[int, ...]) -> None:
    lists = sample(0)
    metrics = ListCompletion(ks, ks, UNSEEN)
    for part in (lists[:7], lists[7:120], lists[120:]):
        width = max(len(targets) for _, targets in part)
        metrics.update(padded([c for c, _ in part], 10), padded([t for _, t in part], width))
    computed = {name: value.item() for name, value in metrics.compute().items()}
    assert computed.pop("lists") == 200
    assert computed == pytest.approx(plain_metrics(lists, ks), rel=1e-12)


def test_the_standard_ndcg_is_that_of_scikit_learn() -> None:
    candidates, targets = [4, 9, 2, 7, 5], [9, 5, 11, 12, 13, 14, 15]
    metrics = ListCompletion((5,), (5,), UNSEEN)
    metrics.update(torch.tensor([candidates]), torch.tensor([targets]))
    relevance = [[float(item in targets) for item in range(UNSEEN)]]
    scores = [[5.0 - candidates.index(item) if item in candidates else -1.0 for item in range(UNSEEN)]]
    assert metrics.compute()["ndcg@5"].item() == pytest.approx(ndcg_score(relevance, scores, k=5))


def test_lists_shorter_than_k_count_only_in_the_standard_metrics(caplog: pytest.LogCaptureFixture) -> None:
    metrics = ListCompletion((5,), (2,), UNSEEN)
    metrics.update(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[5]]))
    computed = metrics.compute()
    assert computed["paper_ndcg@5"].isnan()
    assert computed["paper_hr@2"].isnan()
    assert computed["ndcg@5"] == pytest.approx(1 / math.log2(6))
    assert "Skipping paper_ndcg@5, paper_hr@2: " in caplog.text


@pytest.mark.parametrize("seed", range(5))
def test_ties_have_the_mean_over_all_their_orders(seed: int) -> None:
    """Of several targets a list, some of them unseen."""
    rng, ks, metrics = random.Random(seed), (1, 3), ListCompletion((1, 3), (1, 3), 6)
    totals: dict[str, list[float]] = {}
    rows, padded_targets = [], []
    for number in range(8):
        scores, wanted = [rng.randrange(3) for _ in range(6)], sorted({rng.randrange(8) for _ in range(4)})
        orders = [o for o in itertools.permutations(range(6)) if all(scores[a] >= scores[b] for a, b in pairwise(o))]
        each = [plain_metrics([(list(order), wanted)], ks, unseen=6) for order in orders]
        for name in each[0]:
            totals.setdefault(name, []).append(sum(found[name] for found in each) / len(each))
        rows += [(number, sum(s > scores[t] for s in scores), scores.count(scores[t])) for t in wanted if t < 6]
        padded_targets.append(wanted)
    positions = Positions(*torch.tensor(rows).unbind(1), 8, 3)
    metrics.update(positions, padded(padded_targets, 5))
    found = {name: value.item() for name, value in metrics.compute().items() if name != "lists"}
    assert found == pytest.approx({name: sum(values) / len(values) for name, values in totals.items()})


def test_what_would_spoil_the_metrics_is_refused() -> None:
    metrics = ListCompletion((5,), (10,), UNSEEN)
    with pytest.raises(ValueError, match=r"candidates \[1, 5\]: must be \[B, C\], C at least 10"):
        metrics.update(torch.arange(5)[None], torch.tensor([[1]]))
    with pytest.raises(ValueError, match="each list needs at least one"):
        metrics.update(torch.arange(10)[None], torch.tensor([[NOTHING]]))
    with pytest.raises(ValueError, match="must be at least 1"):
        ListCompletion((0,), (10,), UNSEEN)
