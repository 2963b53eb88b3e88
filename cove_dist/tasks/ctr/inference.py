"""Inference with a trained click-through rate model: the probability of a click for single rows.

Shapes: ``n`` rows, ``B`` users, ``F`` id fields, ``D`` dense columns.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.serving import Precision, ServingTable
from cove_dist.embeddings.tables import FIRST_ORDER_SUFFIX, bag_columns
from cove_dist.errors import ConfigError
from cove_dist.evaluation.search import top_scores
from cove_dist.models.ctr.base import CTRHead
from cove_dist.tasks.ctr.config import CTRRunConfig
from cove_dist.tasks.ctr.evaluator import build_ctr_evaluator
from cove_dist.tasks.ctr.model import CTRModel, Predictions, entity_positions
from cove_dist.tasks.inference import AT_ONCE, NO_CONTEXT, Context, Inference, Lists, Program, ProgramInput
from data_pipeline.batch import Batch


class CTRInference(Inference[CTRModel]):
    """Inference for click-through rate models. Rows are scored as in evaluation and need every column of training."""

    config: CTRRunConfig

    def required_context(self) -> list[str]:
        entities = {self.schema.entity("user").name, self.schema.entity("item").name}
        fields = [column.name for column in bag_columns(self.schema) if column.name not in entities]
        return [*fields, *(column.name for column in self.schema.dense)]

    @torch.no_grad()
    def score(self, users: np.ndarray, items: np.ndarray, context: Context = NO_CONTEXT) -> np.ndarray:
        self._require(context)
        size = self.config.trainer.evaluation_batch_size
        starts = range(0, len(users), size)
        parts = [self._score(slice(start, start + size), users, items, context) for start in starts]
        return np.concatenate([np.empty(0, np.float32), *parts])

    @torch.no_grad()
    def recommend(self, users: np.ndarray, k: int, *, repeat: bool, context: Context = NO_CONTEXT) -> Lists:
        self._require(context)
        count = self.schema.entity("item").num_seen
        items = np.arange(count)
        constant = Context(
            {name: np.repeat(value, count) for name, value in context.ids.items()},
            {name: np.repeat(value, count) for name, value in context.dense.items()},
        )
        scores = np.stack([self.score(np.full(count, user), items, constant) for user in users])
        if not repeat:
            scores[self._pairs(users)] = -np.inf
        top, at = top_scores(torch.from_numpy(scores), min(k, count))
        return Lists(top.numpy(), at.where(top > -torch.inf, -1).numpy())

    @torch.no_grad()
    def programs(self, precision: Precision = "float32") -> dict[str, Program]:
        columns, dense = bag_columns(self.schema), self.schema.dense
        largest = torch.tensor([column.num_rows for column in columns], device="cpu")
        ids = torch.arange(3, device="cpu").unsqueeze(1) % largest
        inputs = {
            "ids": ProgramInput(ids, ("rows", len(columns)), ", ".join(column.name for column in columns)),
            "dense": ProgramInput(
                torch.rand(3, len(dense), device="cpu"), ("rows", len(dense)), ", ".join(each.name for each in dense)
            ),
        }
        module = self._click_probabilities(precision)
        return {"model": Program(module, inputs, columns, "scores", "[rows]: the probability of a click")}

    def evaluate(self, split: str, context: DistributedContext, precision: Precision) -> dict[str, float]:
        module = self._click_probabilities(precision).to(context.device)
        names = [column.name for column in bag_columns(self.schema)]
        return build_ctr_evaluator(self.config, self.schema, split, context, {})(ServedModel(module, names))

    @torch.no_grad()
    def _click_probabilities(self, precision: Precision) -> ClickProbabilities:
        """Return the model as a program on the CPU."""
        columns, objective = bag_columns(self.schema), self.model.objective
        bags = self.model.tables.embedding_bags
        tables = [bags[column.table_name].weight for column in columns]
        for entity, position in entity_positions(self.schema).items():
            if entity in objective.quantizers:  # the fused vector of an id does not change after training
                quantizer = objective.quantizers[entity]
                tables[position] = torch.cat([quantizer(part).fused for part in tables[position].split(AT_ONCE)])
        first = []
        if objective.reader.first_order_keys:
            weights = (bags[column.table_name + FIRST_ORDER_SUFFIX].weight for column in columns)
            first = [weight.mean(dim=1, keepdim=True) for weight in weights]
        dense = [(column.mean, column.std) for column in self.schema.dense]
        module = ClickProbabilities(
            copy.deepcopy(objective.head),
            [ServingTable(table, precision) for table in tables],
            [ServingTable(weight) for weight in first],
            dense,
        )
        return module.cpu().eval()

    def _require(self, context: Context) -> None:
        missing = [name for name in self.required_context() if name not in {*context.ids, *context.dense}]
        if missing:
            raise ConfigError(f"context: the model also reads {', '.join(missing)}; give a value of each")

    def _score(self, rows: slice, users: np.ndarray, items: np.ndarray, context: Context) -> np.ndarray:
        users, items = users[rows], items[rows]
        columns = bag_columns(self.schema)
        by_role = {"user": users, "item": items}
        ids = [by_role[c.role] if c.role in by_role else context.ids[c.name][rows] for c in columns]
        dense = [(context.dense[c.name][rows] - c.mean) / c.std for c in self.schema.dense]
        of_rows = [torch.from_numpy(np.ascontiguousarray(each, np.int64)) for each in (*ids, users, items)]
        values = torch.cat([each.clamp(max=c.num_seen) for each, c in zip(of_rows, columns, strict=False)])
        batch = Batch(
            ids=KeyedJaggedTensor(
                [c.name for c in columns], values, lengths=torch.ones(len(values), dtype=torch.int64, device="cpu")
            ),
            dense=torch.from_numpy(np.reshape(dense, (len(dense), len(users))).T.astype(np.float32)),
            labels=torch.zeros(len(users), device="cpu"),
            users=of_rows[-2],
            items=of_rows[-1],
            weight=torch.ones((), device="cpu"),
        )
        output = self.model(batch.to(self.device))[1]
        assert isinstance(output, Predictions)
        return torch.sigmoid(output.logits.double()).float().cpu().numpy()

    def _pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices into ``users`` and the items of all rows of these users, in any split."""
        user, item = self.schema.entity("user"), self.schema.entity("item")
        folder = Path(self.config.data.path)
        files = [str(folder / name) for split in self.schema.splits.values() for name in split.files]
        wanted = ds.field(user.name).isin(pa.array(users))
        rows = ds.dataset(files).to_table(columns=[user.name, item.name], filter=wanted)
        order = np.argsort(users)
        indices = order[np.searchsorted(users, rows[user.name].to_numpy(), sorter=order)]
        items = rows[item.name].to_numpy()
        seen = items < item.num_seen
        return indices[seen], items[seen]


class ClickProbabilities(nn.Module):
    """Probabilities of clicks from whole tables of final vectors, in float32.

    Args:
        head: The model.
        tables: Tables ``[num_rows, d]`` by column, fused where the column is quantized.
        first_order: Tables ``[num_rows, 1]`` by column; none where the head does not use them.
        dense: Mean and standard deviation by dense column.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        head: CTRHead,
        tables: Sequence[ServingTable],
        first_order: Sequence[ServingTable],
        dense: Sequence[tuple[float, float]],
    ) -> None:
        super().__init__()
        self.head = head
        self.tables, self.first_order = nn.ModuleList(tables), nn.ModuleList(first_order)
        self.register_buffer("mean", torch.tensor([mean for mean, _ in dense]))
        self.register_buffer("std", torch.tensor([std for _, std in dense]))

    def forward(self, ids: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Return probabilities ``[rows]`` of ``ids [rows, F]`` and raw ``dense [rows, D]``."""
        return torch.sigmoid(self.logits(ids, (dense - self.mean) / self.std))

    def logits(self, ids: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Return logits ``[rows]`` of ``ids [rows, F]`` and standardized ``dense [rows, D]``."""
        inputs = [torch.stack([table(ids[:, i]) for i, table in enumerate(self.tables)], dim=1), dense]
        if len(self.first_order):
            inputs.append(torch.cat([table(ids[:, i]) for i, table in enumerate(self.first_order)], dim=1))
        return self.head(*inputs)


class ServedModel(nn.Module):
    """An exported model in the place of the trained one, for evaluation.

    Args:
        served: The exported model.
        columns: Names of its id columns, in order.
    """

    def __init__(self, served: ClickProbabilities, columns: Sequence[str]) -> None:
        super().__init__()
        self.served, self.columns = served, columns

    def forward(self, batch: Batch) -> tuple[None, Predictions]:
        """Return the predictions of a batch, without losses."""
        ids = torch.stack([batch.ids[name].values() for name in self.columns], dim=1)
        return None, Predictions(self.served.logits(ids, batch.dense), {})
