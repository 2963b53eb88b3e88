"""Paired comparisons and Holm's correction, against scipy's own tests and sums done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cove_dist.experiments.statistics import compare, holm, interval_of_mean, mean_and_deviation, p_of_gain


def test_a_comparison_equals_scipys_paired_test() -> None:
    random = np.random.default_rng(0)
    old = dict(enumerate(random.normal(0.7, 0.01, 5)))
    new = {seed: value + random.normal(0.005, 0.004) for seed, value in old.items()}
    result = compare(new, old)
    test = stats.ttest_rel(list(new.values()), list(old.values()))
    assert result.pairs == 5
    assert result.p == pytest.approx(test.pvalue, rel=1e-12)
    mean = np.mean(list(old.values()))
    assert result.gain == pytest.approx(np.mean(list(new.values())) / mean - 1, rel=1e-9)
    interval = test.confidence_interval(0.95)
    assert (result.low * mean, result.high * mean) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_a_comparison_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2)."""
    result = compare({0: 11.0, 1: 12.0, 2: 13.0}, {0: 10.0, 1: 10.0, 2: 10.0})
    t = 2 * math.sqrt(3)
    assert result.gain == pytest.approx(0.2)
    assert result.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert (result.low, result.high) == pytest.approx((0.2 - 0.430265 / 3**0.5, 0.2 + 0.430265 / 3**0.5), abs=1e-6)


def test_pairs_are_the_seeds_that_both_have() -> None:
    result = compare({0: 2.0, 1: 3.0, 7: 100.0}, {1: 2.0, 0: 1.0, 9: 50.0})
    assert result.pairs == 2
    assert result.gain == pytest.approx(1.0 / 1.5)


def test_too_few_pairs_give_no_p_value() -> None:
    none, one = compare({0: 1.0}, {1: 1.0}), compare({0: 1.5}, {0: 1.0})
    assert (none.pairs, one.pairs) == (0, 1)
    assert math.isnan(none.gain)
    assert one.gain == 0.5
    assert all(math.isnan(value) for value in (none.p, one.p, one.low, one.high))


def test_equal_values_are_no_difference() -> None:
    assert compare({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1.0


def test_a_difference_without_spread_is_not_tested() -> None:
    """Of 63 lists with one relevant item each, two more hit with both seeds: two seeds say little about a third."""
    result = compare({0: 21 / 63, 1: 25 / 63}, {0: 23 / 63, 1: 27 / 63})
    assert (result.pairs, result.gain) == (2, pytest.approx(-0.08))
    assert all(math.isnan(value) for value in (result.low, result.high, result.p))


@pytest.mark.parametrize(("new", "gain"), [((0.010, 0.012, 0.011), math.inf), ((-0.010, -0.012, -0.011), -math.inf)])
def test_a_difference_from_nothing_is_infinite_with_its_sign(new: tuple[float, ...], gain: float) -> None:
    result = compare(dict(enumerate(new)), dict.fromkeys(range(3), 0.0))
    assert (result.pairs, result.gain) == (3, gain)
    assert result.p == pytest.approx(stats.ttest_1samp(new, 0.0).pvalue)
    assert math.isnan(result.low) and math.isnan(result.high)
    assert compare({0: -1.0, 1: 1.0}, {0: 1.0, 1: -1.0}).gain == 0.0


def test_the_test_of_a_given_gain_equals_scipys() -> None:
    random = np.random.default_rng(1)
    old = dict(enumerate(random.normal(0.5, 0.02, 5)))
    new = {seed: value + random.normal(0.004, 0.003) for seed, value in old.items()}
    gains = np.array([new[seed] - old[seed] for seed in old]) / np.mean(list(old.values()))
    for gain in (0.0, 0.02, -0.01):
        assert p_of_gain(new, old, gain) == pytest.approx(stats.ttest_1samp(gains, gain).pvalue, rel=1e-9)
    assert p_of_gain(new, old, 0.0) == pytest.approx(compare(new, old).p, rel=1e-12)
    high = compare(new, old).high
    assert p_of_gain(new, old, high) == pytest.approx(0.05), "the end of the 95 % interval"


@pytest.mark.parametrize("new", [{0: 1.1}, {0: 1.0, 1: 2.0}, {0: 1.1, 1: 2.1}])
def test_a_given_gain_is_not_tested_without_spread(new: dict[int, float]) -> None:
    assert math.isnan(p_of_gain(new, {0: 1.0, 1: 2.0}, 0.5))
    assert math.isnan(p_of_gain({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.0}, 0.5)), "relative to nothing"


def test_an_interval_of_fewer_than_two_values_is_not_defined() -> None:
    assert all(math.isnan(end) for values in ([], [0.5]) for end in interval_of_mean(values))
    low, high = stats.t.interval(0.95, 2, 2.0, 1 / math.sqrt(3))
    assert interval_of_mean([1.0, 2.0, 3.0]) == pytest.approx((low, high))


def test_holm_by_hand() -> None:
    """Four tests: 0.01 * 4, 0.02 * 3, 0.03 * 2, 0.04 * 1, none less than the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    adjusted = holm([0.01, math.nan, 0.04])
    assert math.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.02, 0.04])
    assert holm([]) == []


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([1.0, 2.0, 3.0]) == (2.0, 1.0)
    mean, deviation = mean_and_deviation([5.0])
    assert mean == 5.0
    assert math.isnan(deviation)
    assert all(math.isnan(value) for value in mean_and_deviation([]))
