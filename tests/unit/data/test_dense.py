"""Transforms of dense columns, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, QuantileTransformer

from cove_dist.tasks.ctr.transforms import DenseTransforms
from data_pipeline.dense import Bins, Dense

SMALL = st.integers(-6, 6).map(float)  # with many ties
VALUES = st.lists(SMALL | st.floats(-1e4, 1e4, width=32), min_size=2, max_size=60)


def quantiles_of(values: np.ndarray, parts: int) -> tuple[float, ...]:
    return tuple(np.quantile(values, np.linspace(0, 1, parts + 1)).tolist())


@given(VALUES, VALUES, st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_ranks_are_those_of_the_quantile_transformer(train: list, others: list, parts: int) -> None:
    training, values = np.array(train), np.array([*train, *others, *np.quantile(train, np.linspace(0, 1, parts + 1))])
    learned = Dense("x", 0.0, 1.0, quantiles=quantiles_of(training, parts))
    if learned.quantiles[0] == learned.quantiles[-1]:
        return  # refused by preparation
    expected = QuantileTransformer(n_quantiles=parts + 1, subsample=None)
    expected.fit(training[:, None])
    expected.quantiles_, expected.references_ = np.array(learned.quantiles)[:, None], np.linspace(0, 1, parts + 1)
    found = learned.transform(values)
    np.testing.assert_allclose(found, expected.transform(values[:, None])[:, 0], atol=1e-12)
    assert ((found >= 0) & (found <= 1)).all()


@given(VALUES, st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_bins_are_those_of_the_discretizer(train: list, parts: int) -> None:
    values = np.array(train, np.float32)
    edges = np.unique(np.percentile(values.astype(float), np.linspace(0, 100, parts + 1)))
    if len(edges) < 3 or np.diff(edges).min() <= 1e-8:
        return  # refused by preparation, or bins that the discretizer removes
    expected = KBinsDiscretizer(parts, encode="ordinal", strategy="quantile", quantile_method="linear", subsample=None)
    bins = expected.fit_transform(values.astype(float)[:, None])[:, 0]
    found = Bins(tuple(edges[1:-1])).of(values)
    assert found.tolist() == bins.tolist()
    assert Bins((0.0,)).of(np.array([np.nan, -1.0, 0.0])).tolist() == [None, 0, 1]
    assert Bins((0.0,), fill=3.0).of(np.array([np.nan])).tolist() == [1]


FORMS = {
    "plain": Dense("x", 3.0, 2.0),
    "filled": Dense("x", 0.5, 2.0, fill=7.0),
    "clipped": Dense("x", 0.5, 2.0, low=-2.0, high=30.0),
    "log": Dense("x", 0.1, 0.7, fill=0.0, low=0.0, log="log1p"),
    "signed": Dense("x", 0.1, 0.7, log="signed"),
    "rank": Dense("x", 0.5, 0.3, fill=1.0, quantiles=(-3.0, -3.0, 0.0, 1.0, 1.0, 1.0, 40.0, 50.0)),
}


def test_exported_transforms_keep_times_apart() -> None:
    """Seconds of one day, all of which float32 holds: a mean in float32 would be 42 s from this one."""
    column = Dense("time", 1_700_000_042.0, 25_000.0)
    values = np.arange(1_699_999_744, 1_700_086_144, 12_800).astype(np.float32)
    found = DenseTransforms([column])(torch.from_numpy(values[:, None]))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[:, 0], column.apply(values.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_exported_transforms_are_those_of_training(name: str) -> None:
    column = FORMS[name]
    values = np.array([-50, -3, -2.5, 0, 0.5, 1, 1.5, 39, 40, 49.9, 50, 900], np.float32)
    values = np.append(values, np.float32("nan")) if column.fill is not None else values
    found = DenseTransforms([FORMS["plain"], column])(torch.from_numpy(np.stack([values, values], axis=1)))
    np.testing.assert_allclose(found[:, 1], column.apply(values), rtol=1e-5, atol=1e-6)
    steps = {"log": np.log1p, "signed": lambda x: np.sign(x) * np.log1p(abs(x))}
    if name in steps:
        filled = np.clip(np.nan_to_num(values.astype(float), nan=0.0), column.low, column.high)
        expected = (FunctionTransformer(steps[name]).transform(filled) - column.mean) / column.std
        np.testing.assert_allclose(column.apply(values), expected)


def test_numbers_without_a_finite_transform_are_invalid() -> None:
    values = np.array([np.nan, np.inf, -1.0, -0.5], np.float32)
    assert FORMS["plain"].valid(values).tolist() == [False, False, True, True]
    assert FORMS["filled"].valid(values).tolist() == [True, False, True, True]
    assert Dense("x", 0.0, 1.0, log="log1p").valid(values).tolist() == [False, False, False, True]
