"""Settings of dense columns -> transforms learned from the training rows of ``rows``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict, FiniteFloat
from pydantic.dataclasses import dataclass

from data_pipeline.dense import Bins, Dense, Log
from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import SPLIT, Columns
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.preparation.writer import dense_statistics
from data_pipeline.types import PositiveInt

_LARGEST = 10_000  # quantiles, which schema.json lists


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DenseSettings:
    """How one dense column is transformed.

    Attributes:
        fill: Value of missing numbers (null, empty or NaN): a number, or the mean or median of training; None: refused.
        clip: Least and greatest value, either of which may be None.
        log: See `data_pipeline.dense.Dense`.
        quantiles: Number k of quantile intervals for ranks; None: no ranks.
        bins: Number of quantile bins, which make the column categorical; None: it stays a column of numbers.
        scale: Whether the result is standardized.
    """

    fill: FiniteFloat | Literal["mean", "median"] | None = None
    clip: tuple[FiniteFloat | None, FiniteFloat | None] | None = None
    log: Log | None = None
    quantiles: PositiveInt | None = None
    bins: PositiveInt | None = None
    scale: Literal["standard", "none"] = "standard"

    def __post_init__(self) -> None:
        if self.clip is not None:
            low, high = self.clip
            if low is None and high is None:
                raise ValueError("clip = [null, null]: bounds nothing; leave it out")
            if low is not None and high is not None and low >= high:
                raise ValueError(f"clip = [{low:g}, {high:g}]: the first must be less than the second")
        if self.log and self.quantiles:
            raise ValueError(f"log = {self.log}: ranks are the same without it; set log or quantiles to null")
        if self.bins is not None:
            idle = [name for name in ("clip", "log", "quantiles") if getattr(self, name) is not None]
            idle += ["scale"] if self.scale != "standard" else []
            if idle:
                raise ValueError(f"bins = {self.bins}: not with {', '.join(idle)}, which would do nothing")
        for name in ("bins", "quantiles"):
            if (count := getattr(self, name)) is not None and not 2 <= count <= _LARGEST:
                raise ValueError(f"{name} = {count}: must be between 2 and {_LARGEST}")

    @property
    def may_miss(self) -> bool:
        """Whether numbers of the column may be missing."""
        return self.fill is not None or self.bins is not None


def learn_dense(workspace: Workspace, columns: Columns, settings: Mapping[str, DenseSettings]) -> dict[str, Dense]:
    """Learn the transforms of the dense columns that stay numbers; their mean and deviation come later.

    Raises:
        DataError: A logarithm or ranks are undefined.
    """
    return {name: _learn(workspace, name, settings.get(name, DenseSettings())) for name in columns.dense}


def make_bins(workspace: Workspace, columns: Columns, settings: Mapping[str, DenseSettings]) -> dict[str, Bins]:
    """Replace the numbers of binned columns of ``rows`` by their bins.

    Raises:
        DataError: All numbers of a column are equal in training.
    """
    found = {}
    for name in columns.dense:
        if (own := settings.get(name)) is None or own.bins is None:
            continue
        fill = _fill(workspace, name, own)
        edges = np.unique(_quantiles(workspace, name, own.bins, Dense(name, 0, 1, fill=fill)))
        if len(edges) < 3:
            raise DataError(
                f"data.dense_transforms.{name}.bins = {own.bins}: the numbers of training fill one bin. Leave the"
                " column out, or name it in data.categorical"
            )
        found[name] = bins = Bins(tuple(edges[1:-1].tolist()), fill)
        value = f"{quoted(name)}::DOUBLE" if fill is None else f"coalesce({quoted(name)}::DOUBLE, {fill!r})"
        number = " + ".join(f"({value} >= {edge!r})::INT" for edge in bins.edges)
        workspace.query(
            f"ALTER TABLE rows ALTER COLUMN {quoted(name)} TYPE BIGINT"
            f" USING CASE WHEN {value} IS NULL THEN NULL ELSE {number} END"
        )
    return found


def without_bins(columns: Columns, binned: Mapping[str, Bins]) -> Columns:
    """Return the columns with the binned ones among the categorical ones."""
    dense = tuple(name for name in columns.dense if name not in binned)
    return replace(columns, dense=dense, categorical=(*columns.categorical, *binned))


def _learn(workspace: Workspace, name: str, settings: DenseSettings) -> Dense:
    low, high = settings.clip or (None, None)
    learned = Dense(name, 0.0, 1.0, _fill(workspace, name, settings), low, high, settings.log)
    if settings.log == "log1p":
        [(least,)] = workspace.query(f"SELECT min({quoted(name)}::DOUBLE) FROM rows")
        least = min(each for each in (least, learned.fill) if each is not None)
        if (least if low is None else max(least, low)) <= -1:
            raise DataError(
                f"data.dense_transforms.{name}.log = log1p: undefined for {least:g}, the least value. Set log=signed,"
                " or clip=[0,null]"
            )
    if settings.quantiles is None:
        return learned
    quantiles = _quantiles(workspace, name, settings.quantiles, learned)
    if quantiles[0] == quantiles[-1]:
        raise DataError(
            f"data.dense_transforms.{name}.quantiles = {settings.quantiles}: all numbers of training are"
            f" {quantiles[0]:g}. Leave the column out"
        )
    return replace(learned, quantiles=tuple(quantiles.tolist()))


def _fill(workspace: Workspace, name: str, settings: DenseSettings) -> float | None:
    if settings.fill == "mean":
        [(mean,)] = workspace.query(f"SELECT avg({quoted(name)}::DOUBLE) FROM rows WHERE {SPLIT} = 0")
        return float(mean)
    if settings.fill == "median":
        return float(_quantiles(workspace, name, 2, Dense(name, 0, 1))[1])
    return settings.fill


def _quantiles(workspace: Workspace, name: str, parts: int, learned: Dense) -> np.ndarray:
    """Return the quantiles 0, 1/parts, …, 1 of training, after filling and clipping: float64 ``[parts + 1]``.

    They are interpolated linearly between the two nearest values, bit for bit as `numpy.percentile` does.
    """
    value = quoted(name) if learned.fill is None else f"coalesce({quoted(name)}::DOUBLE, {learned.fill!r})"
    ordered = f"SELECT {value}::DOUBLE AS x FROM rows WHERE {SPLIT} = 0 AND {value} IS NOT NULL"
    [(count,)] = workspace.query(f"SELECT count(*) FROM ({ordered})")
    at = np.linspace(0, 100, parts + 1) / 100 * (count - 1)  # rounded as by numpy.percentile
    lower = np.floor(at).astype(np.int64)
    upper = np.minimum(lower + 1, count - 1)
    values = _at_places(workspace, ordered, sorted({*lower.tolist(), *upper.tolist()}))
    a, b, share = *(np.array([values[place] for place in each.tolist()]) for each in (lower, upper)), at - lower
    found = np.where(share < 0.5, a + (b - a) * share, b - (b - a) * (1 - share))
    return np.clip(found, learned.low, learned.high) if learned.low is not None or learned.high is not None else found


def _at_places(workspace: Workspace, values: str, places: Sequence[int]) -> dict[int, float]:
    """Return the values at some places of their order, from 0."""
    return dict(
        workspace.query(
            f"SELECT place, x FROM (SELECT x, row_number() OVER (ORDER BY x) - 1 AS place FROM ({values}))"
            f" WHERE list_contains({list(places)!r}::BIGINT[], place)"
        )
    )


def scaled(learned: Dense, settings: DenseSettings | None, training: Sequence[Path]) -> Dense:
    """Return a transform with mean and deviation of its values in the training files, unless it is not to be scaled."""
    if settings is not None and settings.scale == "none":
        return learned
    found = dense_statistics(training, learned.name, learned.transform)
    return replace(learned, mean=found.mean, std=found.std)
