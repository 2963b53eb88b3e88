"""Requests of many users read what they need once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
import torch

from cove_dist.distributed import process_group
from cove_dist.errors import ConfigError
from cove_dist.inference import session as session_module
from cove_dist.inference.id_lookup import IdLookup
from cove_dist.inference.ids import IdTable
from cove_dist.inference.list_requests import OfSequences
from cove_dist.inference.session import Session
from cove_dist.tasks.cf import inference as cf_inference
from cove_dist.tasks.cf import vectors as cf_vectors
from cove_dist.tasks.cf.inference import CFInference
from cove_dist.tasks.inference import NO_CONTEXT, Lists
from data_pipeline.schema import Categorical, Schema

ITEMS = 10
SCHEMA = Schema("made", None, (Categorical("u", 6, 5, "user"), Categorical("i", ITEMS, ITEMS, "item")), (), {})


class Recorded:
    """Lists two items of every user: 2 u and 2 u + 1."""

    def __init__(self) -> None:
        self.requests: list[list[list[int]]] = []

    def required_context(self) -> list[str]:
        return []

    def recommend_batches(self, batches: Sequence[np.ndarray], k: int, **settings: Any) -> Iterator[Lists]:
        self.requests.append([each.tolist() for each in batches])
        for users in batches:
            yield Lists(np.ones((len(users), 2), np.float32), np.stack([2 * users, 2 * users + 1], axis=1))


def session_of(inference: Any) -> Session:
    session = object.__new__(Session)
    users, items = (IdTable("", SCHEMA.entity(e), IdLookup(pa.array(range(100, 100 + n)))) for e, n in USERS_AND_ITEMS)
    session.__dict__ |= {"schema": SCHEMA, "users": users, "items": items, "inference": inference, "id_tables": None}
    return session


USERS_AND_ITEMS: list[tuple[Any, int]] = [("user", 6), ("item", ITEMS)]


def test_a_request_hands_all_its_batches_to_the_model_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_USERS", 2)
    inference = Recorded()
    table = session_of(inference).recommend([104, 100, 105, 102], 2, unknown="skip")
    assert inference.requests == [[[4, 0], [2]]]
    assert table["user"].to_pylist() == [104, 104, 100, 100, 102, 102]
    assert table["item"].to_pylist() == [108, 109, 100, 101, 104, 105]
    assert len(session_of(inference).recommend([105], 2, unknown="skip")) == 0


def test_a_sequence_without_items_has_no_out_of_vocabulary_row() -> None:
    request = OfSequences(Mock(), [np.array([3]), np.array([], np.int64)])
    assert request.known.tolist() == [True, False]
    with pytest.raises(ConfigError, match="unknown = oov_row: sequence 1 is empty, and has no row; allowed: skip, pop"):
        request.list_of_unseen(2)


def test_collaborative_filtering_builds_one_retriever_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = Mock(side_effect=lambda users: (torch.zeros(len(users), 1), torch.from_numpy(users)[:, None]))
    build = Mock(return_value=retriever)
    monkeypatch.setattr(cf_inference, "TopKRetriever", build)
    inference = object.__new__(CFInference)
    inference.schema, inference.device = SCHEMA, torch.device("cpu")
    inference.model = SimpleNamespace(objective=SimpleNamespace(head=None))  # type: ignore[assignment]
    inference.__dict__["_vectors"] = None
    batches = [np.array([0, 1]), np.array([3])]
    found = [lists.items.tolist() for lists in inference.recommend_batches(batches, 1, repeat=True, context=NO_CONTEXT)]
    assert found == [[[0], [1]], [[3]]]
    assert build.call_count == 1
    assert retriever.finite.compute.call_count == len(batches)


def test_the_vectors_of_a_large_catalogue_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cf_vectors, "_AT_ONCE", 4)
    look_up = Mock(side_effect=lambda tables, columns, ids: {name: each[:, None] * 1.0 for name, each in ids.items()})
    monkeypatch.setattr(cf_vectors, "look_up", look_up)
    objective = SimpleNamespace(fuse=lambda entity, vectors, ids: (vectors, None))
    model: Any = SimpleNamespace(column_of=lambda entity: entity, tables=None, columns=None, objective=objective)
    with process_group("cpu"):
        vectors = cf_vectors.vectors_of(model, SCHEMA, torch.device("cpu"))
        for _ in range(3):
            first, block = vectors.item_block()
            assert (first, block.squeeze(1).tolist()) == (0, list(range(ITEMS)))
    assert look_up.call_count == 3  # parts of 4 of 10 items
