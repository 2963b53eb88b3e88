"""Inference with a trained click-through rate model: the probability of a click for single rows.

Shapes: ``n`` rows, ``B`` users.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.fields import table_modules
from cove_dist.embeddings.serving import Precision, ServingTable
from cove_dist.embeddings.tables import FIRST_ORDER_SUFFIX
from cove_dist.errors import ConfigError
from cove_dist.evaluation.search import top_scores
from cove_dist.tasks.ctr.config import CTRRunConfig
from cove_dist.tasks.ctr.evaluator import build_ctr_evaluator
from cove_dist.tasks.ctr.model import CTRTaskModel, Predictions
from cove_dist.tasks.ctr.program import ClickProbabilities, ServedModel, example_inputs
from cove_dist.tasks.inference import AT_ONCE, NO_CONTEXT, ContextFeatures, Inference, Lists, Program, Ragged
from data_pipeline.batch import Batch


class CTRInference(Inference[CTRTaskModel]):
    """Inference for click-through rate models. Rows are scored as in evaluation and need every column of training."""

    config: CTRRunConfig

    def required_context(self) -> list[str]:
        entities = {self.schema.entity("user").name, self.schema.entity("item").name}
        fields = [column.name for column in self.schema.categorical if column.name not in entities]
        return [*fields, *(column.name for column in self.schema.dense)]

    def score(self, users: np.ndarray, items: np.ndarray, context: ContextFeatures = NO_CONTEXT) -> np.ndarray:
        return self._score_column(0, users, items, context)

    def score_label(
        self, label: str, users: np.ndarray, items: np.ndarray, context: ContextFeatures = NO_CONTEXT
    ) -> np.ndarray:
        if label not in self.labels:
            allowed = ", ".join(self.labels) or "null: the run names no label"
            raise ConfigError(f"label = {label}: not a label of the run; allowed: {allowed}")
        return self._score_column(self.labels.index(label), users, items, context)

    @torch.no_grad()
    def _score_column(self, column: int, users: np.ndarray, items: np.ndarray, context: ContextFeatures) -> np.ndarray:
        self._require(context)
        size = self.config.trainer.evaluation_batch_size
        parts = [np.arange(start, min(start + size, len(users))) for start in range(0, len(users), size)]
        scores = [self._score(users[rows], items[rows], context.take(rows))[:, column] for rows in parts]
        return np.concatenate([np.empty(0, np.float32), *scores])

    @property
    def labels(self) -> tuple[str, ...]:
        return self.config.ctr.names

    @torch.no_grad()
    def recommend(self, users: np.ndarray, k: int, *, repeat: bool, context: ContextFeatures = NO_CONTEXT) -> Lists:
        self._require(context)
        count = self.schema.entity("item").num_seen
        items, constant = np.arange(count), context.take(np.zeros(count, np.int64))
        distinct, which = np.unique(users, return_inverse=True)
        scores = np.stack([self.score(np.full(count, user), items, constant) for user in distinct])
        if not repeat:
            scores[self._pairs(distinct)] = -np.inf
        top, at = top_scores(torch.from_numpy(scores), min(k, count))
        return Lists(top.numpy()[which], at.where(top > -torch.inf, -1).numpy()[which])

    @torch.no_grad()
    def programs(self, precision: Precision = "float32") -> dict[str, Program]:
        module, inputs = self._click_probabilities(precision), example_inputs(self.schema)
        columns, several = list(self.schema.categorical), ", ".join(self.config.ctr.weights)
        meaning = f"[rows, labels]: the probabilities of {several}" if several else "[rows]: the probability of a click"
        return {"model": Program(module, inputs, columns, "scores", meaning)}

    def evaluate(self, split: str, context: DistributedContext, precision: Precision) -> dict[str, float]:
        module = self._click_probabilities(precision).to(context.device)
        return build_ctr_evaluator(self.config, self.schema, split, context, {})(ServedModel(module))

    @torch.no_grad()
    def _click_probabilities(self, precision: Precision) -> ClickProbabilities:
        """Return the model as a program on the CPU."""
        columns, objective, modules = self.schema.categorical, self.model.objective, table_modules(self.model.tables)
        weights: dict[str, torch.Tensor] = {name: table.weight for name, table in modules.items()}
        for entity, quantizer in objective.quantizers.items():
            name = self.schema.entity(entity).table_name  # the fused vector of an id does not change after training
            weights[name] = torch.cat([quantizer(part).fused for part in weights[name].split(AT_ONCE)])
        tables = {column.table_name: ServingTable(weights[column.table_name], precision) for column in columns}
        first = {}
        if objective.head.uses_first_order:
            scalars = {name: weights[name + FIRST_ORDER_SUFFIX].mean(dim=1, keepdim=True) for name in tables}
            first = {name: ServingTable(weight) for name, weight in scalars.items()}
        module = ClickProbabilities(
            copy.deepcopy(objective.head), self.schema, self.config.pooled(self.schema), tables, first
        )
        return module.cpu().eval()

    def _require(self, context: ContextFeatures) -> None:
        given = {*context.ids, *context.dense, *context.lists}
        if missing := [name for name in self.required_context() if name not in given]:
            raise ConfigError(f"context: the model also reads {', '.join(missing)}; give a value of each")

    def _score(self, users: np.ndarray, items: np.ndarray, context: ContextFeatures) -> np.ndarray:
        columns, count = self.schema.categorical, len(users)
        by_role, ones = {"user": users, "item": items}, np.ones(count, np.int64)
        lists = [
            context.lists[column.name]
            if column.sequence
            else Ragged(by_role[column.role] if column.role in by_role else context.ids[column.name], ones)
            for column in columns
        ]
        values = [np.minimum(each.ids, c.num_rows - 1).astype(np.int64) for each, c in zip(lists, columns, strict=True)]
        dense = [c.apply(context.dense[c.name]) for c in self.schema.dense]
        several = [len(self.config.ctr.weights)] if self.config.ctr.weights else []
        batch = Batch(
            ids=KeyedJaggedTensor(
                [column.name for column in columns],
                torch.from_numpy(np.concatenate(values)),
                lengths=torch.from_numpy(np.concatenate([each.lengths for each in lists])),
            ),
            dense=torch.from_numpy(np.reshape(dense, (len(dense), count)).T.astype(np.float32)),
            labels=torch.zeros(count, *several, device="cpu"),
            users=torch.from_numpy(users.astype(np.int64)),
            items=torch.from_numpy(items.astype(np.int64)),
            weight=torch.ones((), device="cpu"),
        )
        output = self.model(batch.to(self.device))[1]
        assert isinstance(output, Predictions)
        return torch.sigmoid(output.logits.double()).float().view(count, -1).cpu().numpy()

    def _pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices into the increasing ``users`` and the items of all their rows, in any split."""
        user, item = self.schema.entity("user"), self.schema.entity("item")
        folder = Path(self.config.data.path)
        files = [str(folder / name) for split in self.schema.splits.values() for name in split.files]
        wanted = ds.field(user.name).isin(pa.array(users))
        rows = ds.dataset(files).to_table(columns=[user.name, item.name], filter=wanted)
        indices = np.searchsorted(users, rows[user.name].to_numpy())
        items = rows[item.name].to_numpy()
        seen = items < item.num_seen
        return indices[seen], items[seen]
