"""Random numbers of the rows of an epoch: the same on every rank and thread.

A number is a hash of a counter: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at any position of its sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_TRANSFORMS = 3  # second word of the random seed, after those of `order`
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1) for the rows of one rank's batch.

    Attributes:
        key: Key of an epoch; see `epoch_key`.
        step: Step of the epoch.
        first_row: Number of the batch's first row in the epoch; see `partition.BatchPosition`.
    """

    key: int
    step: int
    first_row: int

    def stream(self, number: int) -> Draws:
        """Return numbers that are independent of those of other streams."""
        return replace(self, key=int(_mix(np.array([self.key + (number + 1) * int(_GOLDEN) & _MASK], np.uint64))[0]))

    def of_rows(self, rows: int, columns: int) -> np.ndarray:
        """Return float64 ``[rows, columns]``, for the rows of the batch."""
        return self.of_cells(np.arange(rows * columns), columns).reshape(rows, columns)

    def of_cells(self, cells: np.ndarray, columns: int) -> np.ndarray:
        """Return float64 ``[n]``: elements of `of_rows`, by their positions ``row * columns + column``."""
        return self._uniform(cells + self.first_row * columns)

    def of_step(self, count: int) -> np.ndarray:
        """Return float64 ``[count]``, the same on every rank."""
        return self._uniform(np.arange(count) + self.step * count)

    def _uniform(self, counters: np.ndarray) -> np.ndarray:
        hashed = counters.astype(np.uint64)
        hashed *= _GOLDEN
        hashed += np.uint64(self.key)
        return (_mix(hashed) >> np.uint64(11)) * 2.0**-53


def epoch_key(seed: int, epoch: int) -> int:
    """Return the key of the random numbers of an epoch."""
    return int(np.random.SeedSequence([seed, _TRANSFORMS, epoch]).generate_state(1, np.uint64)[0])


def _mix(x: np.ndarray) -> np.ndarray:
    """Apply the finalizer of SplitMix64, in place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
