"""SQL of times: text with or without UTC offsets, and numbers of seconds, milliseconds, microseconds or nanoseconds.

A numeric time may be any number that orders rows. Where it is a time since 1970, all rows must have one unit:

- ``time_unit`` null: numbers are used unchanged, but a column that mixes units is refused (`unit_of`);
- ``s``, ``ms``, ``us``, ``ns``: numbers whose size is that of another unit are invalid rows (`size_of`);
- ``mixed``: every number has the unit of its size;
- ``counter``: not a time since 1970; numbers are used unchanged and unchecked.
"""

from __future__ import annotations

from typing import Literal

TimeUnit = Literal["s", "ms", "us", "ns", "mixed", "counter"]
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # how many make a second
_FIRST, _LAST = 631_152_000, 4_102_444_800  # seconds: 1990 to 2100
_BOUND = (
    10**11
)  # smaller numbers are seconds (until the year 5138), larger ones milliseconds (from 1973); and so on by thousands

_CLOCK = r"^\s*\d{4,}[-/]\d+[-/]\d+([Tt ]\s*\d[\d:.]*)?"  # a date from its year of four digits on, and a time of day
_NANOSECONDS = r"\.\d{6}(\d{1,3})"  # the digits after the microseconds


def offset_of(raw: str) -> str:
    """Return SQL for the text after the time of day: ``+05:00``, ``Z``, ``UTC``; empty where there is none."""
    return f"replace(trim(regexp_replace({raw}, '{_CLOCK}', '')), '\u2212', '-')"


def nanoseconds_of(raw: str) -> str:
    """Return SQL for the nanoseconds since 1970 (HUGEINT) of a text, else null. A text without offset is in UTC."""
    clock, offset = f"nullif(regexp_extract({raw}, '{_CLOCK}'), '')", offset_of(raw)
    joined = f"""trim({clock}) || CASE
        WHEN {offset} = '' OR starts_with({offset}, '+') OR starts_with({offset}, '-') THEN {offset}
        WHEN lower({offset}) = 'z' THEN 'Z' ELSE ' ' || {offset} END"""
    below = f"coalesce(TRY_CAST(rpad(regexp_extract({raw}, '{_NANOSECONDS}', 1), 3, '0') AS INTEGER), 0)"
    return f"(epoch_us(TRY_CAST({joined} AS TIMESTAMPTZ))::HUGEINT * 1000 + {below})"


def unit_of(value: str) -> str:
    """Return SQL for the unit in which a number is a time from 1990 to 2100: s, ms, us, ns; else ``?`` or null."""
    cases = [f"WHEN {value} BETWEEN {_FIRST * by} AND {_LAST * by} THEN '{unit}'" for unit, by in UNITS.items()]
    between = f"WHEN {value} > {_FIRST} AND {value} < {_FIRST * UNITS['ns']} THEN '?'"
    return f"CASE {' '.join(cases)} {between} END"


def size_of(value: str) -> str:
    """Return SQL for the unit by the size of a number: seconds below 10^11, milliseconds below 10^14, and so on."""
    cases = [f"WHEN abs({value}) < {_BOUND * by} THEN '{unit}'" for unit, by in UNITS.items() if unit != "ns"]
    return f"CASE {' '.join(cases)} ELSE 'ns' END"


def to_nanoseconds(value: str, exact: bool) -> str:
    """Return SQL for the nanoseconds of a number in the unit of its size.

    Args:
        value: SQL of the number.
        exact: Whether it is a whole number, for which no digit is lost.
    """
    kind = "HUGEINT" if exact else "DOUBLE"
    cases = [f"WHEN '{unit}' THEN {UNITS['ns'] // by}" for unit, by in UNITS.items()]
    return f"({value})::{kind} * CASE {size_of(value)} {' '.join(cases)} END"
