"""Expected ranking metrics over random orders of ties, for one list at a time, in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from statistics import fmean

METRICS = ("ndcg", "mrr", "hr", "recall")


def metrics_of_order(relevant: Sequence[bool], positives: int, k: int) -> dict[str, float]:
    """Of a list in a fixed order: the definitions."""
    hits = [position for position, hit in enumerate(relevant[:k], start=1) if hit]
    ideal = sum(1 / math.log2(position + 1) for position in range(1, min(positives, k) + 1))
    return {
        "ndcg": sum(1 / math.log2(position + 1) for position in hits) / ideal,
        "mrr": 1 / hits[0] if hits else 0.0,
        "hr": float(bool(hits)),
        "recall": len(hits) / positives,
    }


def averaged_over_orders(scores: Sequence[float], relevant: Sequence[bool], positives: int, k: int) -> dict[str, float]:
    """The mean over all orders in which scores fall: for few items only."""
    found = [metrics_of_order(order, positives, k) for order in _orders(scores, relevant)]
    return {name: fmean(each[name] for each in found) for name in METRICS}


def _orders(scores: Sequence[float], relevant: Sequence[bool]) -> Iterator[list[bool]]:
    groups = _groups(scores, relevant)
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [hit for part in parts for hit in part]


def _groups(scores: Sequence[float], relevant: Sequence[bool]) -> list[list[bool]]:
    pairs = list(zip(scores, relevant, strict=True))
    return [[hit for score, hit in pairs if score == each] for each in sorted(set(scores), reverse=True)]


def expected(scores: Sequence[float], relevant: Sequence[bool], positives: int, k: int) -> dict[str, float]:
    """The same by counting: hypergeometric chances group by group.

    Args:
        scores: of the items of a list.
        relevant: whether each is relevant.
        positives: relevant items in all, which may include items that are not listed.
        k: the length of list that counts.
    """
    gain = found = reciprocal = 0.0
    start, no_hit = 0, 1.0
    for group in _groups(scores, relevant):
        size, hits = len(group), sum(group)
        inside = min(size, max(0, k - start))
        gain += hits * sum(1 / math.log2(start + i + 2) for i in range(inside)) / size
        found += hits * inside / size
        for i in range(inside):  # the group's first hit is its item i
            first = math.comb(size - i - 1, hits - 1) / math.comb(size, hits) if hits else 0.0
            reciprocal += no_hit * first / (start + i + 1)
        no_hit *= math.comb(size - inside, hits) / math.comb(size, hits)
        start += size
    ideal = sum(1 / math.log2(position + 1) for position in range(1, min(positives, k) + 1))
    return {"ndcg": gain / ideal, "mrr": reciprocal, "hr": 1 - no_hit, "recall": found / positives}


def mind_mrr(scores: Sequence[float], labels: Sequence[float]) -> float:
    """``mrr_score`` of MIND's evaluation program, each row at the mean of the reciprocal positions of its ties."""
    total = 0.0
    for score, label in zip(scores, labels, strict=True):
        above = sum(other > score for other in scores)
        tied = sum(other == score for other in scores)
        total += label * sum(1 / (above + i) for i in range(1, tied + 1)) / tied
    return total / sum(labels)


def auc_of_pairs(scores: Sequence[float], labels: Sequence[float]) -> float:
    """The share of pairs of a positive and a negative that are in order; ties count one half."""
    pairs = [(p, n) for p, hit in zip(scores, labels, strict=True) if hit
             for n, other in zip(scores, labels, strict=True) if not other]  # fmt: skip
    return fmean((p > n) + (p == n) / 2 for p, n in pairs)
