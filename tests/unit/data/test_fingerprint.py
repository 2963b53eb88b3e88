"""Fingerprints distinguish prepared folders by their content."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.errors import DataError
from data_pipeline.fingerprint import data_fingerprint, split_fingerprint
from data_pipeline.preparation.prepare import prepare
from data_pipeline.schema import Schema


def swap_labels(folder: Path) -> None:
    """Change two labels: the sizes and extremes of the columns stay the same."""
    file = folder / Schema.load(folder).splits["train"].files[0]
    table = pq.read_table(file)
    labels = table["label"].to_pylist()
    one, other = labels.index(0.0), labels.index(1.0)
    labels[one], labels[other] = labels[other], labels[one]
    at = table.schema.get_field_index("label")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(labels, pa.float32())), file)


def rename_an_id(folder: Path) -> None:
    file = folder / "ids" / "user_id.parquet"
    table = pq.read_table(file)
    ids = table["original_id"].to_pylist()
    at = table.schema.get_field_index("original_id")
    pq.write_table(table.set_column(at, table.schema.field(at), [[*ids[1:], ids[0]]]), file)


def change_the_schema(folder: Path) -> None:
    file = folder / "schema.json"
    file.write_text(file.read_text().replace("synthetic", "planted"))


def test_a_copy_has_the_same_fingerprint_elsewhere_and_with_another_report(prepared: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(prepared, tmp_path / "copy")
    (copy / "report.json").write_text("{}")
    assert data_fingerprint(copy) == data_fingerprint(prepared)
    schema = Schema.load(prepared)
    assert split_fingerprint(copy, schema, "test") == split_fingerprint(prepared, schema, "test")


def without_digests(prepared: Path, folder: Path) -> Path:
    """Copy a prepared folder as it was before digests were kept."""
    copy = shutil.copytree(prepared, folder)
    replace(Schema.load(copy), digests={}).save(copy)
    return copy


@pytest.mark.parametrize("change", [swap_labels, rename_an_id, change_the_schema])
def test_other_content_has_another_fingerprint(prepared: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    copy = without_digests(prepared, tmp_path / "copy")
    before = data_fingerprint(copy)
    change(copy)
    assert data_fingerprint(copy) != before


@pytest.mark.parametrize(
    ("change", "file"), [(swap_labels, "train/part-00000.parquet"), (rename_an_id, "ids/user_id.parquet")]
)
def test_files_that_are_not_as_prepared_have_no_fingerprint(
    prepared: Path, tmp_path: Path, change: Callable[[Path], None], file: str
) -> None:
    copy = shutil.copytree(prepared, tmp_path / "copy")
    change(copy)
    with pytest.raises(DataError, match=f"{file}: .* when it was prepared. Restore it, or prepare the data again"):
        data_fingerprint(copy)


def test_another_schema_and_another_preparation_have_other_fingerprints(prepared: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(prepared, tmp_path / "copy")
    change_the_schema(copy)
    prepare(Synthetic(users=60, items=80, rows=3002), tmp_path / "other", name="synthetic")
    assert len({data_fingerprint(folder) for folder in (prepared, copy, tmp_path / "other")}) == 3


def test_the_fingerprint_of_a_split_depends_only_on_its_files(prepared: Path, tmp_path: Path) -> None:
    copy = without_digests(prepared, tmp_path / "copy")
    schema = Schema.load(copy)
    of = {split: split_fingerprint(copy, schema, split) for split in ("train", "validation", "test")}
    swap_labels(copy)
    assert len(set(of.values())) == 3
    changed = {split: split_fingerprint(copy, schema, split) for split in of}
    assert {split for split in of if of[split] != changed[split]} == {"train"}
    assert len({split_fingerprint(prepared, Schema.load(prepared), split) for split in of}) == 3
