"""The sequences of users are read in one pass for all requests, and are those of the files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from cove_dist.errors import ConfigError
from cove_dist.tasks.inference import Lists
from cove_dist.tasks.sequential.inference import SequentialInference
from cove_dist.tasks.sequential.users import StoredSequences, _newest
from data_pipeline.schema import INPUT, OWNER, SPLITS, TARGET, Categorical, Schema, Split

USERS, ITEMS, SEEN = 12, 20, 16
OWNERS = Categorical(OWNER, 5, 4)
COLUMNS = (
    Categorical("user_id", USERS, USERS, "user"),
    Categorical(INPUT, ITEMS, SEEN, "item", sequence=True, table="item_id"),
    Categorical(TARGET, ITEMS, SEEN, sequence=True, table="item_id"),
    OWNERS,
)
Row = dict[str, Any]


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, list[Row]]:
    """Rows of three splits, two files each, in no order; the last user has none, some users have them in one split."""
    rng = np.random.default_rng(5)
    of_splits: dict[str, list[Row]] = {}
    for split in SPLITS:
        users = rng.choice(USERS - 1, 9).tolist()
        halves = [[rng.integers(0, ITEMS, rng.integers(1, 4)).tolist() for _ in range(2)] for _ in users]
        of_splits[split] = [
            {"user_id": user, INPUT: first, TARGET: then, OWNER: int(rng.integers(0, 5))}
            for user, (first, then) in zip(users, halves, strict=True)
        ]
        for part in range(2):
            pq.write_table(pa.Table.from_pylist(of_splits[split][part * 5 :][:5]), tmp_path / f"{split}-{part}.parquet")
    return of_splits


def schema_of(rows: dict[str, list[Row]]) -> Schema:
    splits = {
        name: Split(len(each), tuple(f"{name}-{part}.parquet" for part in range(2))) for name, each in rows.items()
    }
    return Schema("made", None, COLUMNS, (), splits)


def having(rows: dict[str, list[Row]]) -> np.ndarray:
    return np.unique([row["user_id"] for each in rows.values() for row in each])


@pytest.mark.parametrize("owner", [OWNERS, None])
def test_sequences_are_those_of_the_rows(owner: Categorical | None, rows: dict[str, list[Row]], tmp_path: Path) -> None:
    users = having(rows)
    stored = StoredSequences(tmp_path, schema_of(rows), users, owner)
    for batch in np.array_split(np.random.default_rng(1).permutation(users), 3):
        found = stored.of(batch)
        for place, user in enumerate(batch):
            of_splits = [[row for row in each if row["user_id"] == user] for each in rows.values()]
            sequences = [
                [np.array([min(item, SEEN) for item in row[INPUT] + row[TARGET]]) for row in each]
                for each in of_splits
                if each
            ]
            assert found.newest[place].tolist() == _newest(sequences[-1]).tolist()
            assert found.items[place].tolist() == sorted({item for each in sequences for one in each for item in one})
            if found.owners is not None:
                [*_, last] = (row[OWNER] for each in of_splits for row in each)
                assert found.owners[place] == min(last, OWNERS.num_seen)
        assert (found.owners is None) == (owner is None)


def test_users_without_sequences_are_counted(rows: dict[str, list[Row]], tmp_path: Path) -> None:
    users = np.array([having(rows)[0], USERS - 1, USERS - 1])
    with pytest.raises(ConfigError, match="users: the data have no sequence of 2 of them; give sequences"):
        StoredSequences(tmp_path, schema_of(rows), users, None).of(users)


def test_the_splits_are_read_once_for_all_batches_of_users(
    rows: dict[str, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = object.__new__(SequentialInference)
    inference.config = SimpleNamespace(data=SimpleNamespace(path=str(tmp_path)))  # type: ignore[assignment]
    inference.schema = schema_of(rows)
    inference.model = SimpleNamespace(objective=SimpleNamespace(uses_owner=False))  # type: ignore[assignment]
    monkeypatch.setattr(inference, "_recommend", lambda newest, owners, k, items: Lists(np.array(k), newest))
    reads = Mock(wraps=ds.dataset)
    monkeypatch.setattr(ds, "dataset", reads)
    batches = np.array_split(having(rows), 4)
    found = [lists.items for lists in inference.recommend_batches(batches, 3, repeat=False)]
    assert reads.call_count == len(SPLITS)
    one_by_one = [inference.recommend(batch, 3, repeat=False).items for batch in batches]
    assert [[each.tolist() for each in part] for part in found] == [[e.tolist() for e in part] for part in one_by_one]
