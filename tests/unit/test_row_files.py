"""Files of rows and of users, in every form that preparation reads."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cove_dist.errors import ConfigError
from cove_dist.inference.ids import IdTable
from cove_dist.inference.row_files import read_rows
from cove_dist.inference.users import read_column
from data_pipeline.schema import Categorical

MEGABYTE = 1 << 20  # of which pyarrow parses one at a time, and infers types from the first
IDS = {"user": pa.int64()}


def read(path: Path, types: dict[str, pa.DataType]) -> pa.Table:
    return pa.concat_tables(read_rows(path, types))


def test_line_breaks_in_quotes_may_be_anywhere_in_a_large_file(tmp_path: Path) -> None:
    note = "x" * 40 + "\n" + "y" * 40
    rows = 4 * MEGABYTE // len(note)
    path = tmp_path / "rows.csv"
    path.write_text("user,note\n" + "".join(f'{row},"{note}"\n' for row in range(rows)))
    table = read(path, IDS)
    assert table["user"].to_pylist() == list(range(rows))
    assert set(table["note"].to_pylist()) == {note}
    path.write_text("note,user\n" + "".join(f'"{note}",{row}\n' for row in range(rows)))
    assert len(read_column(path, text=True)) == rows


@pytest.mark.parametrize("at", [0, 1, 200_000])
@pytest.mark.parametrize("other", ["guest", "2.5", str(2**64)])
def test_ids_of_another_kind_may_be_in_any_row(at: int, other: str, tmp_path: Path) -> None:
    """Without an error, whether the first megabyte has one or not, and with the ids of the others."""
    ids = [str(5 + row % 3) for row in range(at)] + [other, "6.0", "7", ""]
    path = tmp_path / "rows.csv"
    path.write_text("user,city\n" + "".join(f"{each},A\n" for each in ids))
    (tmp_path / "ids").mkdir()
    pq.write_table(pa.table({"id": range(3), "original_id": [5, 6, 7]}), tmp_path / "ids" / "user.parquet")
    table = IdTable(tmp_path, Categorical("user", 3, 3, "user"))
    expected = [row % 3 for row in range(at)] + [-1, 1, 2, -1]
    assert np.concatenate([table.encode(part["user"]) for part in read_rows(path, IDS)]).tolist() == expected
    assert table.encode(read_column(path, text=False)).tolist() == expected
    assert table.type_in_files == pa.int64()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [(["5", "", "07"], pa.int64()), (["5", "6.0"], pa.string()), (["5", "x"], pa.string()), (["", ""], pa.int64())],
)
def test_whole_numbers_remain_numbers(fields: list[str], kind: pa.DataType, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("user,city\n" + "".join(f"{each},A\n" for each in fields))
    assert read(path, IDS | {"absent": pa.int64()}).schema == pa.schema([("user", kind), ("city", pa.string())])


def test_an_odd_id_rounds_no_large_one(tmp_path: Path) -> None:
    ids = [2**53 + 1, 17, 2**62 + 1]
    path = tmp_path / "rows.csv"
    path.write_text(f"user\n{ids[0]}\n17.0\n{ids[2]}\n{2**64}\n")
    (tmp_path / "ids").mkdir()
    pq.write_table(pa.table({"id": range(3), "original_id": ids}), tmp_path / "ids" / "user.parquet")
    table = IdTable(tmp_path, Categorical("user", 3, 3, "user"))
    found = read(path, IDS)["user"]
    assert table.encode(found).tolist() == [0, 1, 2, -1]
    assert found.to_pylist() == [str(ids[0]), "17.0", str(ids[2]), str(2**64)]


@pytest.mark.parametrize("rows", [1, 200_000])  # less and more than a megabyte
def test_columns_that_are_passed_on_are_written_as_in_the_file(rows: int, tmp_path: Path) -> None:
    names = ["zip", "code", "price", "day", "stock", "note"]
    first = ["00713", "12345678901234567890", "3", "2026-01-02 03:04:05", "7", ""]
    last = ["713", "1e3", "110000.5", "2026-01-02 03:04:05.25", "n/a", "true"]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([f"user,{','.join(names)}", *[f"5,{','.join(first)}"] * rows, f"6,{','.join(last)}"]))
    table = read(path, IDS)
    assert table.schema == pa.schema([("user", pa.int64()), *((name, pa.string()) for name in names)])
    assert table.slice(rows).to_pylist() == [{"user": 6, **dict(zip(names, last, strict=True))}]
    assert table.slice(0, 1).to_pylist() == [{"user": 5, **dict(zip(names, first, strict=True)), "note": None}]
    (tmp_path / "b.csv").write_text(f"user,{','.join(names)}\n7,{','.join(last)}\n")
    assert read(tmp_path, IDS)["price"].to_pylist() == ["3"] * rows + ["110000.5"] * 2


@pytest.mark.parametrize("rows", [1, 200_000])
def test_a_value_that_is_no_number_is_named_with_its_column(rows: int, tmp_path: Path) -> None:
    types = {**IDS, "price": pa.float64()}
    (tmp_path / "a.csv").write_text("user,city,price\n5,A,1\n")
    (tmp_path / "b.csv").write_text("user,city,price\n" + "5,A,1\n" * rows + "5,A,cheap\n")
    for path in (tmp_path / "b.csv", tmp_path):
        with pytest.raises(ConfigError, match=r"rows = .*/b\.csv: column 'price': 'cheap' is no number\. Correct it"):
            read(path, types)


def test_a_file_that_does_not_exist_is_said_not_to_exist(tmp_path: Path) -> None:
    for name in ("nope.csv", "nope.parquet"):
        with pytest.raises(ConfigError, match=rf"rows = .*{name}: no such file\. Relative paths start at /"):
            read(tmp_path / name, IDS)
        with pytest.raises(ConfigError, match=rf"users = .*{name}: no such file, and neither all nor a list\. Rel"):
            read_column(tmp_path / name, text=False)


@pytest.mark.parametrize(("other", "kind"), [("README.md", "neither by its name"), ("z.csv", "CSV next to Parquet")])
def test_a_folder_of_parquet_files_has_no_others(other: str, kind: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [5]}), tmp_path / "part-0.parquet")
    (tmp_path / other).write_text("# Export\n")
    with pytest.raises(ConfigError, match=rf"rows = .*{other}: {kind}, and Parquet and CSV are read\. .*/\*\.parquet"):
        read(tmp_path, IDS)


def test_all_files_of_a_folder_decide_on_the_type_of_its_ids(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user\n5\n")
    (tmp_path / "b.csv").write_text("user\nguest\n")
    assert read(tmp_path, IDS)["user"].to_pylist() == ["5", "guest"]


def test_a_header_line_without_a_line_break_is_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,city")
    (tmp_path / "b.csv").write_text("user,city\n5,A\n")
    assert read(tmp_path, IDS).to_pydict() == {"user": [5], "city": ["A"]}
    assert read_column(tmp_path / "a.csv", text=False).to_pylist() == []


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("rows", [10, 300_000])
def test_a_quote_that_is_not_closed_hides_no_rows(rows: int, end: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for line, header in (('5,"A', "user,city"), ('"u5', "user")):
        good = line.replace('"', "")
        lines = [header, *[good] * rows, line, *[good] * 3]
        path.write_text("\n".join(lines) + end)
        with pytest.raises(ConfigError, match=r"rows = .*: a quote that is not closed joins the lines after it"):
            read(path, {})
        if header == "user":
            with pytest.raises(ConfigError, match=r"users = .*: a quote that is not closed joins the lines after it"):
                read_column(path, text=True)
        lines[-1] += '"'
        path.write_text("\n".join(lines) + end)
        table = read(path, {})
        assert len(table) == rows + 1 and table.column(table.num_columns - 1)[-1].as_py().count("\n") == 3


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (b'5,"A', "a quote that is not closed joins the lines after it"),
        (b"5,Z\xfcrich", "(cannot be read as text|not UTF-8).*for example: iconv -f LATIN1"),
        (b"5,A,B", "neither Parquet nor CSV with a header: .*Expected 2 columns, got 3"),
    ],
)
@pytest.mark.parametrize("before", [10, 2_500_000])
def test_a_fault_far_from_the_end_and_after_the_first_block_is_named(
    before: int, odd: bytes, message: str, tmp_path: Path
) -> None:
    """20 MB before the fault, or after it."""
    good = b"5,AAAAA\n"
    (tmp_path / "rows.csv").write_bytes(b"user,city\n" + good * before + odd + b"\n" + good * (2_500_000 - before))
    with pytest.raises(ConfigError, match=rf"rows\.csv: {message}"):
        for _ in read_rows(tmp_path / "rows.csv", {}):
            pass


def test_compressed_files_are_read_and_others_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user\n1\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"user\n2\n"))
    with pa.output_stream(str(tmp_path / "c.csv.zst"), compression="zstd") as stream:
        stream.write(b"user\n3\n")
    (tmp_path / "d.tsv").write_text("user\n4\n")
    (tmp_path / "_SUCCESS").write_text("")
    for source in (tmp_path, tmp_path / "*.[ct]sv*"):
        assert read(source, IDS)["user"].to_pylist() == [1, 2, 3, 4]
    (tmp_path / "d.jsonl").write_text('{"user": 5}')
    with pytest.raises(ConfigError, match=r"rows = .*d\.jsonl: JSON lines, and Parquet and CSV are read. Convert it"):
        read(tmp_path, IDS)
    with pytest.raises(ConfigError, match=r"rows = .*d\.jsonl: JSON lines, and Parquet"):
        read(tmp_path / "d.jsonl", IDS)


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_header_line_shows_the_delimiter(delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(delimiter.join(row) for row in (["user", "item"], ["1", "a"], ["2", "b"])))
    assert read(path, IDS).to_pydict() == {"user": [1, 2], "item": ["a", "b"]}
    assert read_column(path, text=False).to_pylist() == [1, 2]


def test_columns_may_be_in_the_names_of_folders(tmp_path: Path) -> None:
    for country in ("DE", "A%20B", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / f"country={country}" / "price=2.5" / "unread=1"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"user": [1, 2]}), folder / "part.parquet")
    types = {"country": pa.string(), "price": pa.float64(), **IDS}
    assert read(tmp_path, types).to_pydict() == {
        "user": [1, 2] * 3,
        "country": ["A B", "A B", "DE", "DE", None, None],
        "price": [2.5] * 6,
    }


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "rows.csv").write_bytes(b"PAR1....")
    with pytest.raises(ConfigError, match=r"rows = .*empty\.csv: neither Parquet nor CSV with a header"):
        read(tmp_path / "empty.csv", IDS)
    with pytest.raises(ConfigError, match=r"users = .*empty\.csv: cannot be read as Parquet, CSV or text"):
        read_column(tmp_path / "empty.csv", text=False)
    with pytest.raises(ConfigError, match=r"rows\.csv: by its first bytes this is a Parquet file"):
        read(tmp_path / "rows.csv", IDS)
