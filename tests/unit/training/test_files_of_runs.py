"""Files of run folders that were damaged, or that somebody made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cove_dist.errors import ConfigError
from cove_dist.report.run_folder import load_run
from cove_dist.runs import LOG_FILE, SUMMARY_FILE, read_json, read_records

RECORD = b'{"kind": "train", "step": 1, "epoch": 0, "loss": 0.5}\n'


@pytest.mark.parametrize("tail", [b"", b'{"kind": "tr', b'{"kind": "tr\r', b"\0" * 50, "ä".encode()[:1]])
def test_an_incomplete_last_line_is_skipped(tmp_path: Path, tail: bytes) -> None:
    (tmp_path / LOG_FILE).write_bytes(RECORD + tail)
    assert [record["loss"] for record in read_records(tmp_path / LOG_FILE)] == [0.5]


def test_a_line_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    record = {"kind": "a\u2028b\x85c", "step": 1}
    (tmp_path / LOG_FILE).write_text(json.dumps(record, ensure_ascii=False) + "\r\n", newline="")
    assert read_records(tmp_path / LOG_FILE) == [record]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\0",
        b"[1]",
        b'{"kind": "train"}',
        b'{"step": 3}',
        b'{"kind": "train", "step": "x"}',
        b'{"kind": "validation", "step": 3, "auc": "high"}',
        b'{"kind": "train", "step": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
)
def test_another_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / LOG_FILE).write_bytes(RECORD + line + b"\n" + RECORD)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/{LOG_FILE}, line 2: not a record \(.*\); remove the line$"):
        read_records(tmp_path / LOG_FILE)


@pytest.mark.parametrize("content", ["{", "", "\0", "[1]", "3", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / SUMMARY_FILE).write_text(content)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/{SUMMARY_FILE}: not .*JSON"):
        read_json(tmp_path / SUMMARY_FILE)


@pytest.mark.parametrize("model", ["{}", "{_target_: 3}", "{_target_: x}", "[1]"])
def test_a_report_refuses_a_configuration_of_something_else(tmp_path: Path, model: str) -> None:
    (tmp_path / LOG_FILE).write_bytes(RECORD)
    (tmp_path / "config.yaml").write_text(f"model: {model}\n")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/config.yaml: not the configuration of a run: "):
        load_run(tmp_path)
