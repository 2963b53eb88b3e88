"""Transforms of dense columns, learned from the training split and applied alike in training, evaluation and serving.

Shapes: ``n`` values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Log = Literal["log1p", "signed"]


@dataclass(frozen=True)
class Dense:
    """A column of real numbers, stored as they are. Batches have ``(t(x) - mean) / std``.

    The transform t is, in this order: `fill` of missing values, clipping to ``[low, high]``, and either a logarithm or
    the rank among `quantiles`. All numbers are those of the training split.

    Attributes:
        name: Name of the column.
        mean, std: Mean and standard deviation of ``t(x)``; 0 and 1 where it is not standardized.
        fill: Value of missing numbers; None: no number may be missing.
        low, high: Bounds; None: unbounded.
        log: ``log1p``: ``ln(1 + x)``; ``signed``: ``sign(x) ln(1 + |x|)``; None: no logarithm.
        quantiles: Quantiles 0, 1/k, …, 1, increasing, k + 1 of them; x becomes its rank between 0 and 1, interpolated
            between them, and the mean rank of equal quantiles, as scikit-learn's QuantileTransformer. Empty: no rank.

    Example:
        >>> price = Dense("price", mean=0.0, std=1.0, fill=0.0, high=100.0, log="log1p")
        >>> price.apply(np.array([np.nan, 0.0, 500.0])).round(3).tolist()
        [0.0, 0.0, 4.615]
    """

    name: str
    mean: float
    std: float
    fill: float | None = None
    low: float | None = None
    high: float | None = None
    log: Log | None = None
    quantiles: tuple[float, ...] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Transform and standardize values: float64 ``[n]``, in which means may far exceed deviations."""
        return (self.transform(values) - self.mean) / self.std

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Transform values without standardizing them: float64 ``[n]``."""
        x = values.astype(np.float64)
        if self.fill is not None:
            x = np.where(np.isnan(x), self.fill, x)
        if self.low is not None or self.high is not None:
            x = np.clip(x, self.low, self.high)
        if self.log == "log1p":
            return np.log1p(x)
        if self.log == "signed":
            return np.sign(x) * np.log1p(np.abs(x))
        return self._rank(x) if self.quantiles else x

    def _rank(self, x: np.ndarray) -> np.ndarray:
        quantiles, ranks = np.array(self.quantiles), np.linspace(0, 1, len(self.quantiles))
        upward = np.interp(x, quantiles, ranks)
        downward = -np.interp(-x, -quantiles[::-1], -ranks[::-1])
        mean = (upward + downward) / 2
        return np.where(x <= quantiles[0], 0.0, np.where(x >= quantiles[-1], 1.0, mean))

    def valid(self, values: np.ndarray) -> np.ndarray:
        """Return which values have a finite transform: bool ``[n]``."""
        with np.errstate(invalid="ignore", divide="ignore"):
            missing = np.isnan(values) if self.fill is not None else np.zeros(len(values), bool)
            return missing | (np.isfinite(values) & np.isfinite(self.transform(values)))


@dataclass(frozen=True)
class Bins:
    """Quantile bins, which make a categorical column of real numbers: bin i is ``edges[i-1] <= x < edges[i]``.

    Attributes:
        edges: Inner edges, increasing.
        fill: Value of missing numbers; None: missing numbers are a category of their own.
    """

    edges: tuple[float, ...]
    fill: float | None = None

    def of(self, values: np.ndarray) -> np.ma.MaskedArray:
        """Return the bin of each value, int64 ``[n]``, masked where it is missing."""
        x = np.asarray(values, np.float32).astype(np.float64)
        if self.fill is not None:
            x = np.where(np.isnan(x), self.fill, x)
        return np.ma.masked_array(np.searchsorted(self.edges, x, side="right"), mask=np.isnan(x))
