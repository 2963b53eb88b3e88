"""Mean and deviation over seeds, paired comparisons, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95
_ROUNDING = 1e-9  # of the mean; differences closer than this are the same


@dataclass(frozen=True)
class PairedTest:
    """One quantizer against another over the seeds that both have. Gains are relative to the other's mean.

    Attributes:
        pairs: Seeds compared.
        gain: Gain of the mean; infinite where the other's mean is 0, nan without pairs.
        low, high: 95 % confidence interval of the gain, with the other's mean taken as exact; nan where `p` is, and
            where the other's mean is 0.
        p: p-value of the two-sided paired t-test of a mean difference of 0; nan under two pairs, and where all
            differences are the same, up to rounding, and not 0: a metric of few rows changes in steps, and t would be
            infinite.
    """

    pairs: int
    gain: float
    low: float
    high: float
    p: float


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample's standard deviation (n - 1); nan if there are too few values."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean()) if array.size else math.nan
    return mean, float(array.std(ddof=1)) if array.size > 1 else math.nan


def interval_of_mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean by Student's t; nan of fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    mean, deviation = mean_and_deviation(values)
    half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half


def compare(new: Mapping[int, float], old: Mapping[int, float]) -> PairedTest:
    """Compare values paired by the seeds that both have, since one seed starts both alike."""
    seeds = sorted(new.keys() & old.keys())
    n = len(seeds)
    if n == 0:
        return PairedTest(0, math.nan, math.nan, math.nan, math.nan)
    difference = np.array([new[seed] - old[seed] for seed in seeds])
    scale, mean = abs(float(np.mean([old[seed] for seed in seeds]))), float(difference.mean())
    gain = mean / scale if scale else math.copysign(math.inf, mean) if mean else 0.0
    if n == 1:
        return PairedTest(1, gain, math.nan, math.nan, math.nan)
    if not difference.any():
        return PairedTest(n, 0.0, 0.0, 0.0, 1.0)
    if _is_constant(difference, scale):
        return PairedTest(n, gain, math.nan, math.nan, math.nan)
    test = stats.ttest_1samp(difference, 0.0)
    interval = test.confidence_interval(_CONFIDENCE)
    low, high = (float(end) / scale if scale else math.nan for end in interval)
    return PairedTest(n, gain, low, high, float(test.pvalue))


def p_of_gain(new: Mapping[int, float], old: Mapping[int, float], gain: float) -> float:
    """Return the p-value of the two-sided paired t-test that the mean gain is a given one.

    Args:
        new, old: Values by seed, compared as by `compare`.
        gain: Gain relative to the mean of ``old``, which is taken as exact.

    Returns:
        nan under two pairs, where the differences do not vary, and where the mean of ``old`` is 0.
    """
    seeds = sorted(new.keys() & old.keys())
    if len(seeds) < 2:
        return math.nan
    difference = np.array([new[seed] - old[seed] for seed in seeds])
    scale = abs(float(np.mean([old[seed] for seed in seeds])))
    if not scale or _is_constant(difference, scale):
        return math.nan
    return float(stats.ttest_1samp(difference, gain * scale).pvalue)


def _is_constant(difference: np.ndarray, scale: float) -> bool:
    """Return whether all differences are the same, up to rounding: t would be infinite."""
    return bool(np.ptp(difference) <= _ROUNDING * scale)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values (Holm, 1979, "A simple sequentially rejective multiple test procedure"); nan: no test."""
    adjusted = [math.nan] * len(p_values)
    ordered = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    running = 0.0
    for rank, (p, i) in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p))
        adjusted[i] = running
    return adjusted
