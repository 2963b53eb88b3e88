"""A rank reads the original ids of its own users, and writes their lists in large row groups."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cove_dist.inference import ids as ids_module
from cove_dist.inference import recommend as recommend_module
from cove_dist.inference.recommend import write_lists
from cove_dist.inference.users import find_users
from data_pipeline.errors import DataError
from data_pipeline.schema import Categorical, Schema

USERS, ITEMS = 9, 6
SCHEMA = Schema("made", None, (Categorical("u", USERS, 8, "user"), Categorical("i", ITEMS, ITEMS, "item")), (), {})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "ids").mkdir()
    for name, ids in (("u", [f"u{each}" for each in range(USERS)]), ("i", list(range(10, 10 + ITEMS)))):
        table = pa.table({"id": range(len(ids)), "original_id": ids})
        pq.write_table(table, tmp_path / "ids" / f"{name}.parquet", row_group_size=2)
    return tmp_path


def test_all_users_are_found_without_their_original_ids(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("cove_dist.inference.users.rare_ids", lambda data, column: 3)
    monkeypatch.setattr(ids_module, "read_original_ids", Mock(side_effect=AssertionError("read")))
    users = find_users("all", "error", str(data), SCHEMA)
    assert (users.known.tolist(), len(users.unknown)) == (list(range(8)), 0)
    assert "Left out 3 users that are rarer in training than data.min_count" in caplog.text
    (data / "ids" / "u.parquet").unlink()
    with pytest.raises(DataError, match=r"u\.parquet: no such file"):
        find_users("all", "error", str(data), SCHEMA)


def test_users_who_are_named_are_found_by_their_original_ids(data: Path) -> None:
    users = find_users(["u3", "x", "u1", "u8", "u3"], "skip", str(data), SCHEMA)
    assert (users.known.tolist(), users.unknown.to_pylist()) == ([1, 3], ["x", "u8"])


@pytest.mark.parametrize("own", [[3, 5, 6], [0, 1, 2], []])
def test_lists_need_the_ids_of_their_users_only_and_are_one_row_group(
    own: list[int], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Mock(wraps=recommend_module.read_original_block)
    monkeypatch.setattr(recommend_module, "read_original_block", block)
    whole = Mock(wraps=recommend_module.read_original_ids)
    monkeypatch.setattr(recommend_module, "read_original_ids", whole)
    batches = [(np.array([user]), torch.tensor([[2.0, 1.0]]), torch.tensor([[user % 6, -1]])) for user in own]
    none = (np.empty(0, np.int64), torch.empty(0, 2), torch.empty(0, 2, dtype=torch.int64))
    path = data / "part.parquet"
    assert write_lists(iter([*batches, none]), np.array(own, np.int64), data, SCHEMA, path) == 0
    assert [call.args[1:] for call in block.call_args_list] == [("u", own[0], own[-1] + 1) if own else ("u", 0, 0)]
    assert [call.args[1] for call in whole.call_args_list] == ["i"]
    written = pq.ParquetFile(path)
    assert written.num_row_groups == min(1, len(own))
    assert written.schema_arrow.types == [pa.string(), pa.int32(), pa.int64(), pa.float32()]
    assert written.read().to_pylist() == [
        {"user": f"u{user}", "rank": 1, "item": 10 + user % 6, "score": 2.0} for user in own
    ]
