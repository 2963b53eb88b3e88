"""How far codes follow categories that training never saw (the paper's section 4.7 and Figure 5).

Shapes: ``N`` ids, ``M`` memberships (pairs of an id and a category it has), ``C`` categories, ``v`` codes of a level.
"""

from __future__ import annotations

import numpy as np


def code_counts(codes: np.ndarray, ids: np.ndarray, categories: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Count the ids of each category that have each code: int64 ``[C, v]``.

    Args:
        codes: int ``[N]``, of every id.
        ids: int ``[M]`` in ``0 .. N-1``, the id of each membership.
        categories: int ``[M]`` in ``0 .. C-1``, its category.
        shape: ``(C, v)``.
    """
    num_categories, num_codes = shape
    cells = categories.astype(np.int64) * num_codes + codes[ids]
    return np.bincount(cells, minlength=num_categories * num_codes).reshape(shape)


def coverage(counts: np.ndarray) -> np.ndarray:
    """Return the share of a category's ids that its i most used codes cover, i = 1 .. v: float64 ``[C, v]``.

    Args:
        counts: ``[C, v]``, from `code_counts`; every category has an id.
    """
    falling = -np.sort(-counts, axis=1)
    return falling.cumsum(axis=1) / counts.sum(axis=1, keepdims=True)


def shuffled_coverage(
    codes: np.ndarray, ids: np.ndarray, categories: np.ndarray, shape: tuple[int, int], *, shuffles: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute `coverage` of shuffled codes: mean and deviation over permutations of the codes.

    The sizes of codes and of categories are kept, so the curve shows what these sizes contribute.

    Args:
        codes, ids, categories, shape: See `code_counts`.
        shuffles: Number of permutations of the codes over the ``N`` ids.
        seed: Seed of the permutations.
    """
    random = np.random.default_rng(seed)
    total, squares = np.zeros(shape), np.zeros(shape)
    for _ in range(shuffles):
        curves = coverage(code_counts(random.permutation(codes), ids, categories, shape))
        total += curves
        squares += curves**2
    mean = total / shuffles
    return mean, np.sqrt(np.maximum(squares / shuffles - mean**2, 0))


def area(curves: np.ndarray) -> float:
    """Return the area under coverage curves ``[C, v]``, a mean over categories and i: 1 if each has one code."""
    return float(curves.mean())
