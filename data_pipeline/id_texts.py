"""Values of requests -> the text that preparation makes of them, by which ids are looked up and hashed.

Preparation writes values that are neither text nor whole numbers as DuckDB does: 2.0 and 2019-11-05 17:30:00, where
Arrow writes 2 and 2019-11-05 17:30:00.000000. So such values are written by DuckDB here, too.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import duckdb

_EXACT = {pa.float32(): 2.0**24, pa.float64(): 2.0**53}  # up to it every whole number is represented exactly
_WHOLE_WITH_POINT = r"\A(-?[0-9]+)\.0*\z"  # in the syntax of RE2


def texts_of(values: pa.Array) -> pa.Array:
    """Return values ``[n]`` as text; null stays null.

    Args:
        values: Numbers, text, booleans, dates, times and timestamps, without a dictionary. Timestamps with a time zone
            become UTC.

    Raises:
        ModuleNotFoundError: DuckDB, which values other than text and whole numbers need, is not installed.

    Example:
        >>> texts_of(pa.array([2.0, 1e-5, None])).to_pylist()
        ['2.0', '1e-05', None]
    """
    values = _plain(values)
    kind = values.type
    if _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.large_string() if pa.types.is_large_string(kind) else pa.string())
    with _connection(os.getpid()).cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", pa.table({"value": values}))
        texts = connection.sql("SELECT value::VARCHAR AS text FROM given").to_arrow_table()["text"]
    return pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())


def digits_of(values: pa.Array) -> pa.Array:
    """Return values ``[n]`` as `texts_of`, but whole numbers without a fraction: 17.0 and "17.0" are 17.

    Numbers that a floating-point type may have rounded keep their fraction, so they are equal to no whole number.

    Example:
        >>> digits_of(pa.array([2e10, 2.5, 2e60])).to_pylist()
        ['20000000000', '2.5', '2e+60']
    """
    values = _plain(values)
    if not pa.types.is_floating(values.type):
        return pc.replace_substring_regex(texts_of(values), _WHOLE_WITH_POINT, r"\1")
    exact = _EXACT[values.type]
    whole = pc.and_(pc.equal(pc.trunc(values), values), pc.less_equal(pc.abs(values), exact)).fill_null(True)
    numbers = pc.if_else(whole, values, pa.scalar(0, values.type)).cast(pa.int64()).cast(pa.string())
    return numbers if pc.all(whole).as_py() else pc.if_else(whole, numbers, texts_of(values))


def _plain(values: pa.Array) -> pa.Array:
    """Return values in a type that preparation knows."""
    if pa.types.is_float16(values.type):
        return values.cast(pa.float32())
    if pa.types.is_decimal256(values.type):  # DuckDB reads them from Parquet as DOUBLE
        return values.cast(pa.float64())
    return values.cast(pa.int64()) if pa.types.is_duration(values.type) else values  # in Parquet they are numbers


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


@cache
def _connection(process: int) -> duckdb.DuckDBPyConnection:
    """Open a database in memory, once per process: opening takes longer than a query."""
    import duckdb  # of an extra of this package

    return duckdb.connect(config={"threads": 1})
