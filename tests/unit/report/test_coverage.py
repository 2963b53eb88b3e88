"""Coverage curves against figures worked out by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cove_dist.report.coverage import area, code_counts, coverage, shuffled_coverage

# Six ids; category 0 has ids 0, 1, 2, 3 and category 1 has ids 2, 4, 5: id 2 has both. Code 3 is never used.
CODES = np.array([0, 0, 1, 2, 1, 0])
IDS = np.array([0, 1, 2, 3, 2, 4, 5])
CATEGORIES = np.array([0, 0, 0, 0, 1, 1, 1])


def test_counts_of_codes_by_category() -> None:
    counts = code_counts(CODES, IDS, CATEGORIES, (2, 4))
    assert counts.tolist() == [[2, 1, 1, 0], [1, 2, 0, 0]]


def test_coverage_takes_each_category_s_own_most_used_codes_first() -> None:
    curves = coverage(code_counts(CODES, IDS, CATEGORIES, (2, 4)))
    assert curves == pytest.approx(np.array([[1 / 2, 3 / 4, 1, 1], [2 / 3, 1, 1, 1]]))
    assert area(curves) == pytest.approx((3.25 + 2 / 3 + 3) / 8)


def test_one_code_for_each_category_covers_it_at_once() -> None:
    curves = coverage(code_counts(np.array([1, 1, 0]), np.arange(3), np.array([0, 0, 1]), (2, 2)))
    assert curves.tolist() == [[1, 1], [1, 1]]
    assert area(curves) == 1


def test_shuffled_coverage_is_mean_and_deviation_over_all_permutations() -> None:
    """Every one of the 720 orders of the codes, counted with plain loops."""
    expected = np.zeros((720, 2, 4))
    for order, codes in enumerate(permutations(CODES.tolist())):
        for category in (0, 1):
            members = [codes[i] for i, c in zip(IDS, CATEGORIES, strict=True) if c == category]
            falling = sorted((members.count(code) for code in range(4)), reverse=True)
            expected[order, category] = [sum(falling[: i + 1]) / len(members) for i in range(4)]
    mean, deviation = shuffled_coverage(CODES, IDS, CATEGORIES, (2, 4), shuffles=5000, seed=1)
    assert mean == pytest.approx(expected.mean(axis=0), abs=0.01)
    assert deviation == pytest.approx(expected.std(axis=0), abs=0.01)


def test_shuffles_follow_the_seed() -> None:
    def curves(seed: int) -> np.ndarray:
        return shuffled_coverage(CODES, IDS, CATEGORIES, (2, 4), shuffles=3, seed=seed)[0]

    assert np.array_equal(curves(0), curves(0))
    assert any(not np.array_equal(curves(0), curves(seed)) for seed in range(1, 6))
