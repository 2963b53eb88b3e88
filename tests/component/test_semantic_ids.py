"""Semantic ids from exported codes, against a loop."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cove_dist.errors import ConfigError
from cove_dist.inference import semantic_ids
from cove_dist.inference.semantic_ids import write_semantic_ids
from data_pipeline.json_files import write_json
from tests.checkpoints import write_checkpoint
from tests.component.report.runs import write_codes, write_run

LEVEL = st.integers(0, 2)
TUPLES = st.lists(st.one_of(st.tuples(LEVEL, LEVEL), st.just((None, None))), min_size=2, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=TUPLES, disambiguate=st.booleans())
def test_tokens_vocabulary_and_collisions(tmp_path_factory: pytest.TempPathFactory, codes, disambiguate) -> None:
    run = tmp_path_factory.mktemp("it's a run")
    ids = [f'item "{number}"' for number in range(len(codes))]
    write_codes(run, "item", ids, codes)
    folder, found = write_semantic_ids([f'run="{run}"', f"disambiguate={str(disambiguate).lower()}"])
    expected, seen = {}, Counter()
    for name, code in zip(ids, codes, strict=True):
        if code[0] is not None:
            expected[name] = [f"<a_{code[0]}>", f"<b_{code[1]}>"] + ([f"<c_{seen[code]}>"] if disambiguate else [])
            seen[code] += 1
    rows = pq.read_table(folder / "semantic_ids.parquet").to_pylist()
    assert {row["original_id"]: row["tokens"] for row in rows} == expected
    assert json.loads((folder / "index.json").read_text()) == expected
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    assert set(vocabulary.values()) == set(range(len(vocabulary)))
    assert {token for tokens in expected.values() for token in tokens} <= set(vocabulary)
    assert (found.ids, found.tuples, found.largest_bucket) == (len(expected), len(seen), max(seen.values(), default=0))
    single = sum(count == 1 for count in seen.values())
    assert found.unique_share == pytest.approx(single / len(expected) if expected else 0)
    assert found.levels == [len({code[level] for code in seen}) for level in (0, 1)]
    if disambiguate:
        assert len({tuple(tokens) for tokens in expected.values()}) == len(expected)


def test_the_memory_of_sorts_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_codes(tmp_path, "item", ["x", "y"], [(0, 0), (0, 1)])
    monkeypatch.setattr(semantic_ids, "_MEMORY", "100KB")
    with pytest.raises(duckdb.OutOfMemoryException):
        write_semantic_ids([f"run={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir() if path.name != "codes"] == ["semantic_ids"]
    assert not list((tmp_path / "semantic_ids").iterdir())


def test_a_run_without_exported_codes_and_a_folder_of_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no exported codes of items; write them by cove export run="):
        write_semantic_ids([f"run={tmp_path}"])
    write_codes(tmp_path, "item", ["x", "y"], [(0, 0), (0, 1)])
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="holds no semantic ids; remove it"):
        write_semantic_ids([f"run={tmp_path}", f"output={tmp_path / 'mine'}"])


def test_codes_of_an_older_checkpoint_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", [])
    write_codes(run, "item", ["x", "y"], [(0, 0), (0, 1)])
    for step, auc in ((3, 0.6), (6, 0.8), (9, 0.7)):
        write_checkpoint(run / "checkpoints", step, {"auc": auc})
    for step in (3, 6, 9):
        write_json(run / "codes" / "codes.json", {"checkpoint": f"step_0000000{step}"})
        write_semantic_ids([f"run={run}"])
    [warning] = caplog.messages
    assert "codes of step_00000003, but the run has step_00000009 (newest), step_00000006 (best)" in warning
    assert f"cove export run={run}" in warning
