"""JSON files conform to RFC 8259, also with numbers that are not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import OutputError
from data_pipeline.json_files import read_record, to_json, write_json


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def strictly(text: str) -> object:
    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("undefined", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_numbers_that_are_not_finite_are_null_at_any_depth(undefined: float) -> None:
    value = {"a": undefined, "b": [1, (undefined, {"c": undefined})], "d": 0.5, "e": True, "f": None}
    assert strictly(to_json(value)) == {"a": None, "b": [1, [None, {"c": None}]], "d": 0.5, "e": True, "f": None}


def test_files_are_indented_and_end_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"auc": math.nan})
    assert (tmp_path / "file.json").read_text() == '{\n  "auc": null\n}\n'


def test_a_record_reads_null_as_nan() -> None:
    record = read_record('{"kind": "validation", "auc": null, "step": 3}')
    assert math.isnan(record.pop("auc"))
    assert record == {"kind": "validation", "step": 3}


def test_a_record_that_is_not_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        read_record("[1]")


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError):
        to_json({"path": Path()})


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.json"
    write_json(file, {"auc": 0.5})
    before, write_text = file.read_text(), Path.write_text

    def full_disk(path: Path, text: str, **arguments: str) -> int:
        write_text(path, text[: len(text) // 2], **arguments)
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OutputError, match="no space left"):
        write_json(file, {"auc": 0.75})
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]
