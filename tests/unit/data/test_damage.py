"""Flipped bytes, and altered, replaced and cut files are named, at the start and between epochs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.digests import row_group_digests
from data_pipeline.errors import DataError
from data_pipeline.fingerprint import data_fingerprint
from data_pipeline.history import History
from data_pipeline.id_tables import read_original_ids
from data_pipeline.parquet_files import open_parquet, write_row_groups
from data_pipeline.preparation.prepare import prepare
from data_pipeline.schema import Schema
from data_pipeline.streaming import row_groups
from data_pipeline.streaming.loader import StreamLoader, build_loader
from tests.unit.data.stream_fixtures import interactions, write_folder

SHARD = "train/part-00000.parquet"


@pytest.fixture(scope="module")
def implicit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("implicit") / "data"
    data = Synthetic(users=40, items=60, rows=1500, implicit=True, split="leave_one_out", candidates=5)
    prepare(data, folder, name="implicit")
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "data")


def loader(folder: Path) -> StreamLoader:
    return build_loader(folder, Schema.load(folder), "train", 64, shuffle=True)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def swap_labels(path: Path) -> None:
    """Write valid rows with other labels and the same sizes: only the content tells."""
    table = pq.read_table(path)
    at = table.schema.get_field_index("label")
    labels = pa.array(reversed(table["label"].to_pylist()), pa.float32())
    pq.write_table(table.set_column(at, table.schema.field(at), [labels]), path)


def test_every_byte_of_a_shard_is_guarded(folder: Path) -> None:
    """Bytes all over the file: magic numbers, page headers, dictionaries, values, the footer and its length."""
    path = folder / SHARD
    whole = path.read_bytes()
    positions = [*range(0, len(whole), 499), *range(len(whole) - 8, len(whole), 3)]
    for position in positions:
        flip(path, position)
        with pytest.raises(DataError, match=SHARD):
            list(loader(folder))
        path.write_bytes(whole)
    assert len(list(loader(folder))) > 1


def test_a_damaged_page_is_found_by_its_checksum_without_digests(folder: Path) -> None:
    replace(Schema.load(folder), digests={}).save(folder)
    path = folder / SHARD
    chunk = pq.read_metadata(path).row_group(0).column(0)
    flip(path, (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 2)
    with pytest.raises(OSError, match="CRC checksum verification failed"), open_parquet(path) as file:
        file.read()


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_file_altered_between_epochs_is_refused_in_the_next(folder: Path, keep_times: bool) -> None:
    batches = loader(folder)
    list(batches)
    stat = (folder / SHARD).stat()
    start, _, _ = row_group_digests(pq.read_metadata(folder / SHARD))[1]
    flip(folder / SHARD, start + 3)
    if keep_times:
        os.utime(folder / SHARD, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    batches.set_epoch(1)
    with pytest.raises(DataError, match=rf"{SHARD}, row group 1: damaged or altered since it was prepared"):
        list(batches)


def test_an_evaluation_loader_compares_the_row_groups_of_its_own_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, read = interactions(600, 50), []
    write_folder(tmp_path, {"test": table}, files=1)
    groups = (table.slice(row, 60) for row in range(0, 600, 60))
    write_row_groups(groups, table.schema, tmp_path / "test/part-00000.parquet")
    monkeypatch.setattr(row_groups, "check_row_group", lambda path, index, *_: read.append(index))
    loaders = [
        build_loader(tmp_path, Schema.load(tmp_path), "test", 32, rank, 2, group_by_user=True) for rank in range(2)
    ]
    assert read == []
    found = []
    for each in loaders:
        list(each)
        found.append(sorted(set(read)))
        read.clear()
    assert sorted({*found[0], *found[1]}) == list(range(10))
    assert max(map(len, found)) < 10


def test_a_file_replaced_between_epochs_is_refused_in_the_next_also_without_digests(folder: Path) -> None:
    replace(Schema.load(folder), digests={}).save(folder)
    batches = loader(folder)
    list(batches)
    swap_labels(folder / SHARD)
    batches.set_epoch(1)
    with pytest.raises(DataError, match=rf"{SHARD}: .*when it was prepared"):
        list(batches)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def use_another_shard(path: Path) -> None:
    path.write_bytes(path.with_name("part-00001.parquet").read_bytes())


@pytest.mark.parametrize("change", [swap_labels, truncate, empty, use_another_shard, Path.unlink])
def test_a_shard_that_is_not_the_prepared_one_is_refused_at_the_start(
    folder: Path, change: Callable[[Path], None]
) -> None:
    change(folder / SHARD)
    for start in (loader, data_fingerprint):
        with pytest.raises(DataError, match=f"{SHARD}: "):
            start(folder)


@pytest.mark.parametrize("name", ["history/train/items.npy", "history/train/offsets.npy", "ids/item_id.parquet"])
@pytest.mark.parametrize("position", [0, 100, -9])
def test_histories_and_id_tables_are_checked_when_they_are_read(
    implicit: Path, tmp_path: Path, name: str, position: int
) -> None:
    folder = shutil.copytree(implicit, tmp_path / "data")
    (read := lambda: (History.load(folder, "train"), read_original_ids(folder, "item_id")))()
    flip(folder / name, position)
    with pytest.raises(DataError, match=name):
        read()


def test_every_file_of_a_prepared_folder_has_a_digest(implicit: Path) -> None:
    files = {path.relative_to(implicit).as_posix() for path in implicit.rglob("*") if path.is_file()}
    assert set(json.loads((implicit / "schema.json").read_text())["digests"]) == files - {"schema.json", "report.json"}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.parquet", "train/../../secret.parquet", "link.parquet", "a\0b"]
)
def test_files_outside_the_folder_are_refused(folder: Path, name: str) -> None:
    shutil.copy(folder / SHARD, folder.parent / "secret.parquet")
    (folder / "link.parquet").symlink_to(folder.parent / "secret.parquet")
    schema = json.loads((folder / "schema.json").read_text())
    schema["splits"]["train"]["files"][0] = name
    (folder / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(DataError, match=rf"schema\.json: names the file {re.escape(repr(name))}, which is outside"):
        Schema.load(folder)
