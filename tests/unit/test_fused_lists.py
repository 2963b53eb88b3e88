"""Items of lists are quantized with those of the rows: equal rows of the table have equal codes, others their own."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.ctr.model import CTRObjective
from data_pipeline.batch import Batch

NUM_SEEN, BUCKETS, DIM = 6, 3, 4
ROWS = NUM_SEEN + BUCKETS


class Reader(nn.Module):
    """Takes the vectors from a table, and keeps what the head would be given."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def vectors(self, looked_up: Any, rows: int) -> dict[str, torch.Tensor]:
        ids = looked_up
        self.found = {name: self.table[ids[name].values()] for name in ids.keys()}  # noqa: SIM118 - not a mapping
        self.found["item"] = self.found["item"][:rows]
        return self.found

    def fields(self, vectors: dict[str, torch.Tensor], ids: KeyedJaggedTensor, rows: int) -> torch.Tensor:
        return vectors["item"].unsqueeze(1)


class Head(nn.Module):
    uses_first_order = attends_to_histories = False

    def forward(self, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        return fields.sum(dim=(1, 2))


@given(
    rare=st.lists(st.integers(0, 4 * ROWS), min_size=1, max_size=6),
    listed=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12),
    padding=st.integers(0, 2),
)
def test_codes_are_those_of_each_vector_alone(rare: list[int], listed: list[int], padding: int) -> None:
    """Ids from `NUM_SEEN` on share the rows of the buckets, whose numbers are ids as well."""
    torch.manual_seed(0)
    table, quantizer = torch.randn(ROWS, DIM), CascadedQuantizer(DIM, (5, 2)).eval()
    own = [each if each < NUM_SEEN else NUM_SEEN + (2 * each + 1) % BUCKETS for each in rare]
    values, lengths = own + [0] * padding + listed, [1] * (len(own) + padding) + [len(listed)]
    lengths += [0] * (len(own) + padding - 1)
    ids = KeyedJaggedTensor(["item", "before"], torch.tensor(values), lengths=torch.tensor(lengths))
    numbers = torch.tensor(rare)
    batch = Batch(ids, torch.zeros(len(own), 0), torch.zeros(len(own)), numbers, numbers, torch.ones(()))
    reader = Reader(table)
    objective = CTRObjective(Head(), reader, {"item": quantizer}, {"item": ["item", "before"]}, 1.0)  # type: ignore[arg-type]
    objective(ids, batch)
    for name, rows in (("item", own), ("before", listed)):
        alone = torch.cat([quantizer(table[row : row + 1]).fused for row in rows])
        torch.testing.assert_close(reader.found[name], alone)
