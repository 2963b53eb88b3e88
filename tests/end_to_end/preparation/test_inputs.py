"""Folders, globs, lists and addresses of files of every kind give the same rows, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from data_pipeline.datasets.custom import Custom
from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import Download
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from tests.unit.data.prepare_helpers import NAMES, prepare_custom, read_decoded, some_rows, write_csv

ROWS = some_rows()
COLUMNS = dict(zip(NAMES, zip(*ROWS, strict=True), strict=True))
TABLE = pa.table({name: list(values) for name, values in COLUMNS.items()})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("plain")
    write_csv(folder / "raw.csv", ROWS)
    prepare_custom(folder / "raw.csv", folder / "out")
    return read_decoded(folder / "out")


def json_lines() -> str:
    return "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS)


def compressed(path: Path, text: str) -> None:
    with pa.output_stream(str(path), compression="gzip" if path.suffix == ".gz" else "zstd") as stream:
        stream.write(text.encode())


def csv_text(folder: Path) -> str:
    return write_csv(folder / "plain.tmp", ROWS).read_text()


WRITE = {
    "rows.csv.zst": lambda path: compressed(path, csv_text(path.parent)),
    "rows.tsv.gz": lambda path: compressed(path, csv_text(path.parent).replace(",", "\t")),
    "rows.jsonl": lambda path: path.write_text(json_lines()),
    "rows.ndjson.gz": lambda path: compressed(path, json_lines()),
    "rows.json.zst": lambda path: compressed(path, json_lines()),
    "rows.arrow": lambda path: pa.feather.write_feather(TABLE, path, compression="uncompressed"),
    "rows.feather": lambda path: pa.feather.write_feather(TABLE, path, compression="lz4"),
}


@pytest.mark.parametrize("name", WRITE)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, expected: dict, name: str) -> None:
    WRITE[name](tmp_path / name)
    prepare_custom(tmp_path / name, tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected


def write_parts(folder: Path) -> list[Path]:
    (folder / "deep").mkdir(parents=True)
    paths = [folder / "a.csv", folder / "deep" / "b.csv"]
    write_csv(paths[0], ROWS[:30])
    write_csv(paths[1], ROWS[30:])
    return paths


def test_a_folder_and_a_list_are_read_in_order(tmp_path: Path, expected: dict) -> None:
    paths = write_parts(tmp_path / "raw")
    (tmp_path / "raw" / "_SUCCESS").touch()
    (tmp_path / "raw" / ".hidden.csv").write_text("x")
    sources = [tmp_path / "raw", f"{tmp_path}/raw/**/*.csv"]
    for number, source in enumerate(sources):
        prepare_custom(source, tmp_path / f"out{number}")
        assert read_decoded(tmp_path / f"out{number}") == expected
    data = Custom(source=tuple(map(str, paths)), user="user", item="item", label="label", time="time")
    prepare(data, tmp_path / "listed", name="small")
    assert read_decoded(tmp_path / "listed") == expected
    assert Report.load(tmp_path / "listed").source == f"{paths[0]}, {paths[1]}"


def test_columns_in_the_names_of_folders_are_read(tmp_path: Path) -> None:
    for country, part in (("DE", TABLE[:50]), ("a%20b", TABLE[50:80]), ("__HIVE_DEFAULT_PARTITION__", TABLE[80:])):
        folder = tmp_path / "raw" / f"country={country}"
        folder.mkdir(parents=True)
        pq.write_table(part, folder / "part-0.parquet")
    prepare_custom(tmp_path / "raw", tmp_path / "out", categorical=("country",))
    decoded = [row for rows in read_decoded(tmp_path / "out").values() for row in rows]
    country = {(row["user_id"], row["item_id"]): row["country"] for row in decoded}
    # a folder's files are read in order of their names, which is that of the countries
    for number, (user, item, *_) in enumerate(ROWS):
        assert country[user, item] == ("DE" if number < 50 else "a b" if number < 80 else None)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:
        """End the connection in the middle of a file whose name says so."""
        if "/broken" not in self.path:
            return super().copyfile(source, outputfile)
        content = source.read()
        outputfile.write(content[: content.index(b"\n", len(content) // 2) + 1])


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_addresses_of_a_web_server_are_downloaded(tmp_path: Path, address: str, expected: dict) -> None:
    with gzip.open(tmp_path / "www" / "rows.csv.gz", "wt") as file:
        file.write(csv_text(tmp_path))
    prepare_custom(f"{address}/rows.csv.gz?token=secret", tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected
    assert "secret" not in (tmp_path / "out" / "report.json").read_text()
    assert Report.load(tmp_path / "out").source.startswith(f"{address}/rows.csv.gz?query_")
    with pytest.raises(DataError, match=rf"{address}/none\.csv: cannot be downloaded: HTTP Error 404"):
        prepare_custom(f"{address}/none.csv", tmp_path / "other")
    write_csv(tmp_path / "www" / "bad.csv", [(1, 2, 7, 4)])
    with pytest.raises(DataError, match=rf"{address}/bad\.csv: column 'label': label is not 0 or 1"):
        prepare_custom(f"{address}/bad.csv", tmp_path / "other")


def test_a_download_that_ends_early_is_no_file(tmp_path: Path, address: str) -> None:
    """Cut at the end of a line it would be a valid file, with half the rows."""
    (tmp_path / "www" / "broken.csv").write_text(csv_text(tmp_path))
    with pytest.raises(
        DataError, match=r"/broken\.csv: cannot be downloaded: the connection ended [\d,]+ bytes before"
    ):
        prepare_custom(f"{address}/broken.csv", tmp_path / "out")
    with pytest.raises(OSError, match=r"the connection ended [\d,]+ bytes before"):
        Download(f"{address}/broken.csv").download(tmp_path)


def test_globs_and_folders_of_an_object_store_are_downloaded(tmp_path: Path, expected: dict) -> None:
    store = fsspec.filesystem("memory")
    for path in write_parts(tmp_path / "raw"):
        store.put(str(path), f"/bucket/{path.relative_to(tmp_path / 'raw')}")
    for number, source in enumerate(("memory://bucket", "memory://bucket/**/*.csv")):
        prepare_custom(source, tmp_path / f"out{number}")
        assert read_decoded(tmp_path / f"out{number}") == expected
    with pytest.raises(DataError, match=r"memory://bucket/\*\.parquet: no file matches"):
        prepare_custom("memory://bucket/*.parquet", tmp_path / "other")
    with pytest.raises(DataError, match=r"nonsense://x: addresses of nonsense:// cannot be read: .* Give a path, or"):
        prepare_custom("nonsense://x", tmp_path / "other")


def test_what_is_wrong_with_files_is_named(tmp_path: Path) -> None:
    def error(source: Path | str, **settings: object) -> str:
        with pytest.raises(DataError) as caught:
            prepare_custom(source, tmp_path / "out", **settings)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "empty: the folder contains no files" in error(tmp_path / "empty")
    paths = write_parts(tmp_path / "raw")
    pq.write_table(TABLE, tmp_path / "raw" / "c.parquet")
    assert "files of several kinds: CSV (a.csv) and Parquet (c.parquet)" in error(tmp_path / "raw")
    (tmp_path / "rows.jsonl").write_text(json_lines())
    assert "no line has a value for 'stars'" in error(tmp_path / "rows.jsonl", label="stars")
    (tmp_path / "broken.jsonl").write_text(json_lines() + '{"user": 1,\n')
    assert "broken.jsonl: cannot be read" in error(tmp_path / "broken.jsonl")
    prepare_custom(tmp_path / "broken.jsonl", tmp_path / "dropped", on_invalid="drop")
    assert sum(Report.load(tmp_path / "dropped").rows_dropped.values()) == 1
    for name, kind in (("x.zst", "zstd"), ("x.arrow", "Arrow")):
        (tmp_path / name).write_bytes(paths[0].read_bytes())
        assert f"cannot be read as {kind}: its first bytes are" in error(tmp_path / name)
    pa.feather.write_feather(TABLE, tmp_path / "cut.arrow")
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "cut.arrow").read_bytes()[:-30])
    assert "cut.arrow: cannot be read as Arrow" in error(tmp_path / "cut.arrow")


def test_files_of_an_s3_store_are_read(tmp_path: Path, expected: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    store.start()
    settings = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "AWS_ENDPOINT_URL": "http://{}:{}".format(*store.get_host_and_port())}.items():
        monkeypatch.setenv(name, value)
    bucket = s3fs.S3FileSystem()
    bucket.mkdir("bucket")
    for path in write_parts(tmp_path / "raw"):
        bucket.put(str(path), f"bucket/{path.relative_to(tmp_path / 'raw')}")
    for number, source in enumerate(("s3://bucket", "s3://bucket/**/*.csv")):
        prepare_custom(source, tmp_path / f"out{number}")
        assert read_decoded(tmp_path / f"out{number}") == expected
    with pytest.raises(DataError, match=r"s3://bucket/none\.csv: cannot be downloaded: no such file"):
        prepare_custom("s3://bucket/none.csv", tmp_path / "other")
    store.stop()
