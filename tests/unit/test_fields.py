"""Fields of columns of lists: pooled by TorchRec or row by row, against a loop over the lists."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.embeddings.fields import FieldReader, build_field_tables, one_scalar, table_modules
from cove_dist.embeddings.tables import FIRST_ORDER_DIM
from cove_dist.types import Pooling
from data_pipeline.schema import Categorical

ITEMS, GENRES, DIM = 9, 5, 8
COLUMNS = (
    Categorical("item_id", ITEMS, ITEMS, "item"),
    Categorical("genres", GENRES, GENRES, sequence=True, max_length=4),
    Categorical("before", ITEMS, ITEMS, sequence=True, table="item_id", max_length=4),
)
BATCHES = st.lists(
    st.tuples(
        st.integers(0, ITEMS), st.lists(st.integers(0, GENRES), max_size=4), st.lists(st.integers(0, ITEMS), max_size=4)
    ),
    min_size=1,
    max_size=6,
)
Rows = list[tuple[int, list[int], list[int]]]


def reader_of(
    pooling: dict[str, Pooling], by_row: Collection[str]
) -> tuple[torch.nn.Module, FieldReader, dict[str, torch.Tensor]]:
    tables = build_field_tables(COLUMNS, DIM, first_order=True, by_row=by_row)
    tables.to_empty(device="cpu")
    with torch.no_grad():
        for weight in tables.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(weight.shape[0] * weight.shape[1]))
    weights = {name: table.weight for name, table in table_modules(tables).items()}
    return tables, FieldReader(tables, COLUMNS, pooling), weights


def batch_of(rows: Rows, padding: int) -> KeyedJaggedTensor:
    """The rows and, behind them, some without ids, as ranks with fewer rows have them."""
    columns = [[[item] for item, _, _ in rows], [genres for _, genres, _ in rows], [before for *_, before in rows]]
    lengths = [[len(each) for each in column] + [0] * padding for column in columns]
    values = [entry for column in columns for each in column for entry in each]
    return KeyedJaggedTensor(
        [column.name for column in COLUMNS],
        torch.tensor(values, dtype=torch.int64),
        lengths=torch.tensor(lengths).flatten(),
        stride=len(rows) + padding,
    )


def pooled(vectors: torch.Tensor, entries: list[int], pooling: Pooling) -> torch.Tensor:
    if not entries:
        return torch.zeros(vectors.shape[1])
    rows = [vectors[entry] for entry in entries]
    if pooling == "max":
        return torch.tensor([max(row[i].item() for row in rows) for i in range(len(rows[0]))])
    total = sum(rows[1:], rows[0])
    return total / len(rows) if pooling == "mean" else total


@settings(max_examples=20, deadline=None)
@given(rows=BATCHES, padding=st.integers(0, 2))
@pytest.mark.parametrize(
    ("pooling", "by_row"),
    [
        ({"genres": "sum", "before": "mean"}, ()),
        ({"genres": "mean", "before": "sum"}, ("item_id",)),
        ({"genres": "max", "before": "max"}, ("item_id", "genres")),
    ],
)
def test_fields_and_first_order_weights_equal_a_loop(
    pooling: dict[str, Pooling], by_row: tuple[str, ...], rows: Rows, padding: int
) -> None:
    tables, reader, weights = reader_of(pooling, by_row)
    ids, count = batch_of(rows, padding), len(rows)
    looked_up = tables(ids)
    fields = reader.fields(reader.vectors(looked_up, count), ids, count)
    first_order = reader.first_order(looked_up, ids, count)
    scalar = {name: weights[f"{name}_first_order"].mean(dim=1, keepdim=True) for name in ("item_id", "genres")}
    for row, (item, genres, before) in enumerate(rows):
        expected = [
            weights["item_id"][item],
            pooled(weights["genres"], genres, pooling["genres"]),
            pooled(weights["item_id"], before, pooling["before"]),
        ]
        torch.testing.assert_close(fields[row], torch.stack(expected))
        of_lists = {"genres": ("genres", genres), "before": ("item_id", before)}
        linear = [scalar["item_id"][item]]
        for name, (table, entries) in of_lists.items():
            linear.append(pooled(scalar[table], entries, "sum" if pooling[name] == "sum" else "mean"))
        torch.testing.assert_close(first_order[row], torch.cat(linear))


@pytest.mark.parametrize(
    ("optimizer", "settings_of"),
    [
        (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.2}),
        (torch.optim.Adagrad, {"lr": 0.1, "weight_decay": 0.2}),
        (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.2}),
        (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.2}),
    ],
)
def test_a_first_order_weight_in_several_columns_changes_like_one_number(
    optimizer: type[torch.optim.Optimizer], settings_of: dict[str, float]
) -> None:
    one, columns = torch.zeros(3, 1, requires_grad=True), torch.zeros(3, FIRST_ORDER_DIM, requires_grad=True)
    target = torch.tensor([[1.0], [-2.0], [0.5]])
    steps = [(weights, optimizer([weights], **settings_of)) for weights in (one, columns)]
    for _ in range(30):
        for weights, stepper in steps:
            stepper.zero_grad()
            (one_scalar(weights) - target).square().sum().backward()
            stepper.step()
    torch.testing.assert_close(columns, one.expand(-1, FIRST_ORDER_DIM), rtol=1e-4, atol=1e-6)


@given(rows=BATCHES)
@settings(max_examples=20, deadline=None)
def test_a_head_gets_every_entry_and_its_place(rows: Rows) -> None:
    tables, reader, weights = reader_of({"genres": "mean"}, ("item_id",))
    ids, count = batch_of(rows, padding=1), len(rows)
    vectors = reader.vectors(tables(ids), count)
    entries, present = reader.histories(vectors, ids, count)
    assert reader.fields(vectors, ids, count).shape == (count, 2, DIM)
    assert entries.shape[:2] == (count, 1)
    for row, (*_, before) in enumerate(rows):
        assert present[row, 0].tolist() == [place < len(before) for place in range(entries.shape[2])]
        assert torch.equal(entries[row, 0, : len(before)], weights["item_id"][before])
        assert not entries[row, 0, len(before) :].any()


def test_the_maximum_passes_its_gradient_to_the_entries_that_have_it() -> None:
    tables, reader, weights = reader_of({"genres": "max", "before": "max"}, ("item_id", "genres"))
    ids = batch_of([(0, [1, 2, 3], []), (1, [], [4])], padding=0)
    fields = reader.fields(reader.vectors(tables(ids), 2), ids, 2)
    fields[0, 1].sum().backward()
    gradient = weights["genres"].grad
    assert gradient is not None
    expected = np.zeros((GENRES + 1, DIM))
    largest = weights["genres"].detach()[[1, 2, 3]].numpy().argmax(axis=0) + 1
    expected[largest, np.arange(DIM)] = 1
    assert np.array_equal(gradient.numpy(), expected)
