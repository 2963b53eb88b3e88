"""A click-through rate model as a program of torch alone, with whole tables.

Shapes: ``F`` columns of one id per row, ``S`` columns of lists, ``L`` entries of the longest lists of all columns
together, ``D`` dense columns, ``d`` embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from cove_dist.embeddings.fields import pool
from cove_dist.embeddings.serving import ServingTable
from cove_dist.embeddings.tables import bag_columns
from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.ctr.joint import JointHead
from cove_dist.tasks.ctr.model import Predictions
from cove_dist.tasks.ctr.transforms import DenseTransforms
from cove_dist.tasks.inference import ProgramInput
from cove_dist.types import Pooling
from data_pipeline.batch import Batch
from data_pipeline.schema import Categorical, Schema


class ClickProbabilities(nn.Module):
    """Probabilities of clicks from whole tables of final vectors, in float32.

    Args:
        head: The model.
        schema: Schema of the columns.
        pooling: Pooling by column of lists; none for those that the head attends to.
        tables: Tables ``[num_rows, d]`` by name, fused where they are quantized.
        first_order: Tables ``[num_rows, 1]`` by name; none where the head does not use them.
    """

    def __init__(
        self,
        head: CTRHead | JointHead,
        schema: Schema,
        pooling: Mapping[str, Pooling],
        tables: Mapping[str, ServingTable],
        first_order: Mapping[str, ServingTable],
    ) -> None:
        super().__init__()
        self.head, self.columns, self.pooling = head, schema.categorical, dict(pooling)
        item = schema.entity("item")
        self.item = bag_columns(schema).index(item), item.table_name
        self.tables, self.first_order = nn.ModuleDict(tables), nn.ModuleDict(first_order)
        self.transform = DenseTransforms(schema.dense)

    def forward(
        self,
        ids: torch.Tensor,
        dense: torch.Tensor,
        lists: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return probabilities ``[rows]``, or ``[rows, T]`` of T labels.

        Args:
            ids: Rows of the tables of the columns of one id, int64 ``[rows, F]``.
            dense: Raw dense columns ``[rows, D]``.
            lists: Entries of all columns of lists side by side, each padded to its longest list, int64 ``[rows, L]``.
            lengths: Lengths of the lists, int64 ``[rows, S]``. Slots behind a list may hold any row of the table.
        """
        return torch.sigmoid(self.logits(ids, self.transform(dense), lists, lengths))

    def logits(
        self, ids: torch.Tensor, dense: torch.Tensor, lists: torch.Tensor | None, lengths: torch.Tensor | None
    ) -> torch.Tensor:
        """Return logits ``[rows]``; as `forward`, with standardized ``dense``."""
        fields, first_order, histories, place, start, number = [], [], [], 0, 0, 0
        for column in self.columns:
            if not column.sequence:
                one = ids[:, place]
                fields.append(self.tables[column.table_name](one))
                first_order += [self.first_order[column.table_name](one)] if self.first_order else []
                place += 1
                continue
            assert lists is not None and lengths is not None, "the model reads lists"
            entries, pooling = lists[:, start : start + column.max_length], self.pooling.get(column.name)
            slots = torch.arange(column.max_length, device=ids.device)
            present = slots < lengths[:, number : number + 1]
            vectors = self.tables[column.table_name](entries)
            if pooling is None:
                histories.append((vectors.masked_fill(~present.unsqueeze(2), 0.0), present))
            else:
                fields.append(pool(vectors, present, pooling))
            if self.first_order:
                weights = self.first_order[column.table_name](entries)
                first_order.append(pool(weights, present, "sum" if pooling == "sum" else "mean"))
            start, number = start + column.max_length, number + 1
        inputs = [torch.stack(fields, dim=1), dense]
        inputs += [torch.cat(first_order, dim=1)] if first_order else []
        return self.head(*inputs, *self._attended(ids, histories))

    def _attended(
        self, ids: torch.Tensor, histories: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, ...]:
        """Return the candidate and the lists that the head attends to; nothing if it attends to none."""
        if not histories:
            return ()
        longest = max(present.shape[1] for _, present in histories)
        vectors = [F.pad(each, (0, 0, 0, longest - each.shape[1])) for each, _ in histories]
        masks = [F.pad(each, (0, longest - each.shape[1])) for _, each in histories]
        place, table = self.item
        item = self.tables[table](ids[:, place])
        return item, torch.stack(vectors, dim=1), torch.stack(masks, dim=1)


def example_inputs(schema: Schema) -> dict[str, ProgramInput]:
    """Return the inputs of `ClickProbabilities` for these columns, with valid examples of three rows."""
    singles, dense = bag_columns(schema), schema.dense
    inputs = {
        "ids": ProgramInput(_ids(singles), ("rows", len(singles)), ", ".join(column.name for column in singles)),
        "dense": ProgramInput(
            torch.rand(3, len(dense), device="cpu"), ("rows", len(dense)), ", ".join(each.name for each in dense)
        ),
    }
    lists = [column for column in schema.categorical if column.sequence]
    if not lists:
        return inputs
    slots = [column for column in lists for _ in range(column.max_length)]
    longest = torch.tensor([column.max_length for column in lists], device="cpu")
    widths = ", ".join(f"{column.name} ({column.max_length} slots)" for column in lists)
    return inputs | {
        "lists": ProgramInput(
            _ids(slots), ("rows", len(slots)), f"{widths}: the oldest first; slots behind a list may hold any row"
        ),
        "lengths": ProgramInput(
            torch.arange(3, device="cpu").unsqueeze(1) % (longest + 1),
            ("rows", len(lists)),
            ", ".join(f"number of {column.name}" for column in lists),
        ),
    }


def _ids(columns: list[Categorical]) -> torch.Tensor:
    """Return valid ids ``[3, columns]``."""
    rows = torch.tensor([column.num_rows for column in columns], device="cpu")
    return torch.arange(3 * len(columns), device="cpu").view(3, -1) % rows


class ServedModel(nn.Module):
    """An exported model in the place of the trained one, for evaluation.

    Args:
        served: The exported model.
    """

    def __init__(self, served: ClickProbabilities) -> None:
        super().__init__()
        self.served = served

    def forward(self, batch: Batch) -> tuple[None, Predictions]:
        """Return the predictions of a batch, without losses."""
        columns = self.served.columns
        ids = torch.stack([batch.ids[column.name].values() for column in columns if not column.sequence], dim=1)
        lists = [(batch.ids[column.name], column.max_length) for column in columns if column.sequence]
        inputs: tuple[torch.Tensor | None, ...] = None, None
        if lists:
            entries = torch.cat([each.to_padded_dense(longest)[: len(ids)] for each, longest in lists], dim=1)
            inputs = entries, torch.stack([each.lengths()[: len(ids)] for each, _ in lists], dim=1)
        return None, Predictions(self.served.logits(ids, batch.dense, *inputs), {})
