"""Times in every format give the correct order of a user's rows, or are refused with a row of each format."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.report import Report
from tests.unit.data.prepare_helpers import NAMES, pairs, prepare_custom, read_decoded, write_csv, write_parquet

START = 1_577_836_800  # 2020-01-01, in seconds


def last_items(folder: Path) -> list[int]:
    """Return the item of the last row of every user."""
    return [item for _, item in sorted(pairs(read_decoded(folder)["test"]))]


def prepare_times(folder: Path, times: list, *, write: str = "csv", **settings) -> list[int]:
    """Prepare two users with these times (the last row has item 0) and return their last items."""
    columns = {
        "user": [user for user in (1, 2) for _ in times],
        "item": [item for _ in (1, 2) for item in reversed(range(len(times)))],
        "label": [number * number % 3 % 2 for number in range(2 * len(times))],
        "time": [*times, *times],
    }
    if write == "csv":
        source = write_csv(folder / "raw.csv", zip(*columns.values(), strict=True), NAMES)
    else:
        source = write_parquet(folder / "raw.parquet", columns)
    prepare_custom(source, folder / "out", split="leave_one_out", **settings)
    return last_items(folder / "out")


@pytest.mark.parametrize(
    "latest",
    [
        "2024-01-01T07:00:00Z",
        "2024-01-01T07:00:00z",
        "2024-01-01 07:00:00 UTC",
        "2024-01-01 07:00:00+00",
        "2024-01-01T02:00:00-0500",
        "2024-01-01 02:00:00 -05:00",
        "2024-01-01T02:00:00.5-05:00",
        "2024-01-01T12:30+05:30",
        "2024-01-01 08:00:00 Europe/Berlin",
    ],
)
def test_offsets_of_text_are_respected(tmp_path, latest):
    """All but the last row are between 9:30 and 11:30 on a clock five hours ahead, that is before 6:31 UTC."""
    times = [f"2024-01-01T{9 + hour}:30:00+05:00" for hour in range(3)]
    assert prepare_times(tmp_path, [*times, latest]) == [0, 0]


def test_times_without_offset_are_ordered_among_dates(tmp_path):
    assert prepare_times(tmp_path, ["2024-01-02", "2024-01-02 9:05", "2024-1-02 10:00:00", "2024-01-03"]) == [0, 0]


def test_nanoseconds_of_text_order_rows(tmp_path):
    times = [
        f"2024-01-01T00:00:00.{nanoseconds}Z" for nanoseconds in ("123456002", "123456003", "123456010", "1234561")
    ]
    assert prepare_times(tmp_path, times) == [0, 0]


@pytest.mark.parametrize("without", ["2024-01-01T10:00:00", "2024-01-01"])
def test_rows_with_and_without_offset_are_refused(tmp_path, without):
    times = ["2024-01-01T10:00:00+05:00", "2024-01-01T10:00:00Z", without, without]
    with pytest.raises(DataError) as caught:
        prepare_times(tmp_path, times)
    message = str(caught.value)
    assert "'2024-01-01T10:00:00+05:00' in data row 1 of" in message and "has a UTC offset" in message
    assert f"{without!r} in data row 3 of {tmp_path}/raw.csv has none" in message


@pytest.mark.parametrize("wrong", ["2024-01-01 10:00:00 PM", "2024-01-01T10:00:00 Mars", "2024-13-01", "infinity"])
def test_text_after_the_time_of_day_is_never_ignored(tmp_path, wrong):
    times = ["2024-01-01 08:00:00", "2024-01-01 09:00:00", "2024-01-01 09:30:00", wrong]
    with pytest.raises(DataError, match=r"UTC offset|not a number or a timestamp"):
        prepare_times(tmp_path, times)


@pytest.mark.parametrize("written", ["05-11-{:02}", "05/11/{:02}", "31-12-{:02} 10:00:00"])
def test_years_of_two_digits_are_refused(tmp_path, written):
    """As a year, a month and a day, the 5th of November 2019 would be the 19th of November of the year 5."""
    with pytest.raises(DataError, match=r"time is not a number or a timestamp, such as 2019-11-05"):
        prepare_times(tmp_path, [written.format(day) for day in (19, 20, 21, 22)])


@pytest.mark.parametrize(("unit", "by"), [("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("write", ["csv", "parquet"])
def test_seconds_mixed_with_another_unit_are_refused_and_can_be_converted(tmp_path, unit, by, write):
    times = [START * by, START + 1, (START + 2) * by, START + 3]
    with pytest.raises(DataError) as caught:
        prepare_times(tmp_path, times, write=write)
    message = str(caught.value)
    assert message.startswith("column 'time': times in several units: s in 4 rows")
    assert f"'{START + 1}' in data row 2 of {tmp_path}/raw.{write}" in message
    assert f"{unit} in 4 rows ('{START * by}' in data row 1 of" in message
    assert prepare_times(tmp_path, times, write=write, time_unit="mixed") == [0, 0]


def test_a_stated_unit_leaves_out_rows_of_another_unit(tmp_path):
    times = [START + 1, START + 2, START + 3, START * 1000]
    with pytest.raises(DataError, match=r"outside the range of data\.time_unit = s in 2 rows"):
        prepare_times(tmp_path, times, time_unit="s")
    assert prepare_times(tmp_path, times, time_unit="s", on_invalid="drop") == [1, 1]
    assert sum(Report.load(tmp_path / "out").rows_dropped.values()) == 2


def test_fractions_of_seconds_survive_the_conversion(tmp_path):
    times = [START + 0.25, START * 1000 + 300, START + 0.5, START + 0.75]
    assert prepare_times(tmp_path, times, time_unit="mixed") == [0, 0]


@pytest.mark.parametrize("times", [[0, 5, 2_000_000_000, 2_000_000_000_000], [1, 2, 3, START]])
def test_counters_are_ordered_without_conversion(tmp_path, times):
    assert prepare_times(tmp_path, times, time_unit="counter") == [0, 0]


def test_a_column_with_numbers_between_two_units_is_not_a_mix(tmp_path):
    assert prepare_times(tmp_path, [START, 10 * START, 100 * START, 1000 * START]) == [0, 0]


def test_an_outlier_does_not_hide_a_mix_of_units(tmp_path):
    times = [START + 1, (START + 2) * 1000, START + 3, (START + 4) * 1000, 9_999_999_999]
    with pytest.raises(DataError, match="times in several units: s in 4 rows"):
        prepare_times(tmp_path, times)


@pytest.mark.parametrize("kind", ["s", "ms", "us", "ns", "ns zone", "us zone", "date"])
def test_typed_timestamps(tmp_path, kind):
    unit, _, zone = kind.partition(" ")
    if kind == "date":
        values = pa.array([date(2024, 1, 1) + timedelta(days=step) for step in range(4)] * 2)
    else:
        values = pa.array([*range(4)] * 2, pa.timestamp(unit, tz="Europe/Berlin" if zone else None))
    columns = {"user": [1] * 4 + [2] * 4, "item": [3, 2, 1, 0] * 2, "label": [0, 1] * 4, "time": values}
    source = write_parquet(tmp_path / "raw.parquet", columns)
    prepare_custom(source, tmp_path / "out", split="leave_one_out")
    assert last_items(tmp_path / "out") == [0, 0]
    with pytest.raises(DataError, match=r"data\.time_unit = s: only for numbers"):
        prepare_custom(source, tmp_path / "again", split="leave_one_out", time_unit="s")


def test_a_zone_is_respected_across_files_and_mixing_it_with_local_times_is_refused(tmp_path):
    tokyo, local = timezone(timedelta(hours=9)), datetime(2024, 1, 1, 10)
    rows = {"user": [1, 1], "item": [2, 1], "label": [0, 1]}
    write_parquet(tmp_path / "a.parquet", rows | {"time": [local.replace(tzinfo=tokyo)] * 2})
    write_parquet(
        tmp_path / "b.parquet", rows | {"item": [3, 0], "time": [datetime(2024, 1, 1, h, tzinfo=UTC) for h in (2, 3)]}
    )
    prepare_custom(tmp_path / "*.parquet", tmp_path / "out", split="leave_one_out")
    assert last_items(tmp_path / "out") == [0]
    write_parquet(tmp_path / "c.parquet", rows | {"time": [local] * 2})
    with pytest.raises(
        DataError, match=r"a\.parquet: column 'time' .*WITH TIME ZONE, but in .*c\.parquet .* TIMESTAMP;"
    ):
        prepare_custom(tmp_path / "*.parquet", tmp_path / "again", split="leave_one_out")
