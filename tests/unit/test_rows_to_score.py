"""Which columns of a table are users and items, and which ids are scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from cove_dist.errors import ConfigError
from cove_dist.inference.predict import column_types, score_rows
from cove_dist.inference.row_files import read_rows
from cove_dist.inference.session import Session
from data_pipeline.dense import Dense
from data_pipeline.schema import Categorical, Schema

# Encoded data keep the names of their columns
COLUMNS = (Categorical("uid", 9, 9, role="user"), Categorical("iid", 9, 9, role="item"))


def score(users: pa.Array, items: pa.Array, columns: dict[str, Any], unknown: str) -> np.ndarray:
    """10 * user + item; as for ids from 9 on, which training did not see: nan if they are skipped."""
    pairs = np.stack([users.to_numpy(), items.to_numpy()])
    scores = (pairs * [[10], [1]]).sum(axis=0).astype(np.float32)
    return np.where((pairs >= 9).any(axis=0) & (unknown == "skip"), np.nan, scores)


@pytest.fixture
def session() -> Session:
    inference = SimpleNamespace(required_context=dict, labels=("label",))
    schema = Schema("made", "label", COLUMNS, (), {})
    return cast(Session, SimpleNamespace(schema=schema, inference=inference, score=score))


def scores(rows: pa.Table) -> Sequence[float]:
    return rows["score"].to_pylist()


def test_users_and_items_are_named_as_in_the_prepared_data(session: Session) -> None:
    rows = pa.table({"uid": [1, 2], "iid": [3, 4], "other": [5, 6]})
    assert scores(score_rows(session, rows, None, None, "error")) == [13, 24]
    assert scores(score_rows(session, rows, "other", "uid", "error")) == [51, 62]
    with pytest.raises(ConfigError, match=r"rows: no column iid; there are uid, item_id; name them by item=COLUMN"):
        score_rows(session, pa.table({"uid": [1], "item_id": [3]}), None, None, "error")


def test_rows_of_unseen_ids_are_skipped_or_have_the_score_of_the_session(session: Session) -> None:
    rows = pa.table({"uid": [9, 2], "iid": [3, 4]})
    assert scores(score_rows(session, rows, None, None, "skip")) == [24]
    assert scores(score_rows(session, rows, None, None, "oov_row")) == [93, 24]


def test_scores_have_another_name_where_the_model_reads_a_column_score(session: Session) -> None:
    rows = pa.table({"uid": [1], "iid": [3], "score": [0.5]})
    with pytest.raises(ConfigError, match="there is a column score already; rename it"):
        score_rows(session, rows, None, None, "error")
    reads = SimpleNamespace(required_context=lambda: ["score"], labels=("label",))
    session = cast(Session, SimpleNamespace(schema=session.schema, inference=reads, score=score))
    assert score_rows(session, rows, None, None, "error").to_pylist() == [
        {"uid": 1, "iid": 3, "score": 0.5, "predicted_score": 13.0}
    ]


def test_columns_of_csv_have_the_types_that_the_run_reads_whatever_the_first_rows_look_like(tmp_path: Path) -> None:
    """Arrow infers types from the first megabyte: 0439 would be 439, 3 a whole number, and an empty column null."""
    path = tmp_path / "rows.csv"
    rows = ["1,0439,3,", *["1,0439,3,"] * 140_000, "2,0440|12,3.5,note"]
    path.write_text("uid,tags,price,remark\n" + "\n".join(rows) + "\n")
    lists = Categorical("tags", 9, 9, sequence=True, max_length=3)
    schema = Schema("made", "label", (*COLUMNS, lists), (Dense("price", 0.0, 1.0),), {})
    id_tables = SimpleNamespace(of=lambda column: SimpleNamespace(type_in_files=pa.int64()))
    session = cast(Session, SimpleNamespace(schema=schema, id_tables=id_tables))
    types = column_types(session, None, None)
    table = pa.concat_tables(read_rows(path, types))
    assert table.slice(len(table) - 1).to_pylist() == [{"uid": 2, "tags": "0440|12", "price": 3.5, "remark": "note"}]
    assert table.slice(0, 1).to_pylist() == [{"uid": 1, "tags": "0439", "price": 3.0, "remark": None}]
