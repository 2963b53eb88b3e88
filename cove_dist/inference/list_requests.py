"""Requests for lists of items, of users or of sequences, in encoded ids.

Shapes: ``n`` users or sequences, ``k`` items of a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from cove_dist.errors import ConfigError
from cove_dist.tasks.inference import ContextFeatures, Inference, Lists


@dataclass(frozen=True)
class OfUsers:
    """Lists of users.

    Attributes:
        name: Column of the keys in the answer.
        inference: The model.
        keys: Original ids ``[n]``.
        encoded: Encoded ids, int64 ``[n]``.
        num_seen: How many users training saw; they have the first encoded ids.
        context: One row of further columns, the same for every pair.
    """

    name: ClassVar = "user"
    inference: Inference[Any]
    keys: pa.Array
    encoded: np.ndarray
    num_seen: int
    context: ContextFeatures

    @cached_property
    def known(self) -> np.ndarray:
        """Which users training saw: bool ``[n]``."""
        return (self.encoded >= 0) & (self.encoded < self.num_seen)

    def lists(self, parts: Sequence[np.ndarray], k: int, *, repeat: bool) -> Iterator[Lists]:
        """Yield the lists of every part: indices of known users. Items are repeated as `Inference.recommend` does."""
        batches = [self.encoded[rows] for rows in parts]
        return self.inference.recommend_batches(batches, k, repeat=repeat, context=self.context)

    def list_of_unseen(self, k: int) -> Lists:
        """Return the list ``[1, k]`` of the out-of-vocabulary row, from which nothing is removed."""
        return self.inference.recommend(np.array([self.num_seen]), k, repeat=True, context=self.context)


@dataclass(frozen=True)
class OfSequences:
    """Lists of the next items of sequences.

    Attributes:
        name: Column of the keys in the answer.
        inference: The model.
        sequences: Encoded items of each of n sequences, int64.
    """

    name: ClassVar = "sequence"
    inference: Inference[Any]
    sequences: Sequence[np.ndarray]

    @cached_property
    def keys(self) -> pa.Array:
        """The indices of the sequences."""
        return pa.array(range(len(self.sequences)))

    @cached_property
    def known(self) -> np.ndarray:
        """Which sequences have items: bool ``[n]``."""
        return np.array([len(each) > 0 for each in self.sequences], dtype=bool)

    def lists(self, parts: Sequence[np.ndarray], k: int, *, repeat: bool) -> Iterator[Lists]:
        """Yield the lists of every part: indices of sequences with items."""
        for rows in parts:
            yield self.inference.recommend_after([self.sequences[row] for row in rows], k, repeat=repeat)

    def list_of_unseen(self, k: int) -> Lists:
        """Refuse the list of the out-of-vocabulary row: a sequence without items has no row."""
        raise ConfigError(
            f"unknown = oov_row: sequence {int(np.argmin(self.known))} is empty, and has no row; allowed: skip, popular"
        )
