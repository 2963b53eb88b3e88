"""SQL of times: text with or without UTC offsets, and numbers of seconds, milliseconds, microseconds or nanoseconds.

A numeric time may be anything that orders rows. Where it is a count since 1970, all rows must count in one unit:

- ``time_unit`` null: numbers stand as they are, but a column that mixes units is refused (`unit_of`);
- ``s``, ``ms``, ``us``, ``ns``: numbers of another size are invalid rows (`size_of`);
- ``mixed``: every number counts in the unit that its size tells;
- ``counter``: not since 1970; numbers stand as they are, unchecked.
"""

from __future__ import annotations

from typing import Literal

TimeUnit = Literal["s", "ms", "us", "ns", "mixed", "counter"]
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of each in a second
_FIRST, _LAST = 631_152_000, 4_102_444_800  # seconds: 1990 to 2100
_BOUND = 10**11  # seconds end here (in the year 5138), where milliseconds begin (in 1973); and so on by thousands

_CLOCK = r"^\s*\d+[-/]\d+[-/]\d+([Tt ]\s*\d[\d:.]*)?"  # a date, and a time of day
_NANOSECONDS = r"\.\d{6}(\d{1,3})"  # what follows microseconds


def offset_of(raw: str) -> str:
    """SQL for what follows the clock in a text: ``+05:00``, ``Z``, ``UTC``; empty where there is none."""
    return f"replace(trim(regexp_replace({raw}, '{_CLOCK}', '')), '\u2212', '-')"


def nanoseconds_of(raw: str) -> str:
    """SQL for the nanoseconds since 1970 (HUGEINT) of a text, else null. No offset is that of UTC."""
    clock, offset = f"nullif(regexp_extract({raw}, '{_CLOCK}'), '')", offset_of(raw)
    joined = f"""trim({clock}) || CASE
        WHEN {offset} = '' OR starts_with({offset}, '+') OR starts_with({offset}, '-') THEN {offset}
        WHEN lower({offset}) = 'z' THEN 'Z' ELSE ' ' || {offset} END"""
    below = f"coalesce(TRY_CAST(rpad(regexp_extract({raw}, '{_NANOSECONDS}', 1), 3, '0') AS INTEGER), 0)"
    return f"(epoch_us(TRY_CAST({joined} AS TIMESTAMPTZ))::HUGEINT * 1000 + {below})"


def unit_of(value: str) -> str:
    """SQL for the unit in which a number is a time from 1990 to 2100: s, ms, us, ns; ``?`` between those, or null."""
    cases = [f"WHEN {value} BETWEEN {_FIRST * by} AND {_LAST * by} THEN '{unit}'" for unit, by in UNITS.items()]
    between = f"WHEN {value} > {_FIRST} AND {value} < {_FIRST * UNITS['ns']} THEN '?'"
    return f"CASE {' '.join(cases)} {between} END"


def size_of(value: str) -> str:
    """SQL for the unit that the size of a number tells: below 10^11 seconds, below 10^14 milliseconds, and so on."""
    cases = [f"WHEN abs({value}) < {_BOUND * by} THEN '{unit}'" for unit, by in UNITS.items() if unit != "ns"]
    return f"CASE {' '.join(cases)} ELSE 'ns' END"


def to_nanoseconds(value: str, exact: bool) -> str:
    """SQL for the nanoseconds of a number in the unit that its size tells.

    Args:
        value: SQL of the number.
        exact: it is a whole number, so that no digit is lost.
    """
    kind = "HUGEINT" if exact else "DOUBLE"
    cases = [f"WHEN '{unit}' THEN {UNITS['ns'] // by}" for unit, by in UNITS.items()]
    return f"({value})::{kind} * CASE {size_of(value)} {' '.join(cases)} END"
