"""What a training step keeps for its backward pass, and its floating-point operations: measured on small batches.

Both are sums of a constant, a part per row, a part per id that is looked up once per batch (a vocabulary), and a part
per pair of them. Four small steps on CPU, on random rows, give these four numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingCollection,
    get_embedding_names_by_table,
)
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from cove_dist.embeddings.fields import FieldTables, LookedUp, Tables, table_configs
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.task import Lookups
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema

ROWS, IDS = 32, 64  # of the smaller measured batches


class StepCost(NamedTuple):
    """Cost of the part of a step after the look-up.

    Attributes:
        activations: Bytes kept for the backward pass, without parameters and looked-up rows.
        flops: Floating-point operations of matrix products, forward and backward.
    """

    activations: float
    flops: float


def step_cost(model: TaskModel, schema: Schema, lookups: Lookups, rows: int) -> StepCost:
    """Measure small steps and extrapolate.

    Args:
        model: Model with tables on the meta device and the other part on CPU.
        schema: Schema of the data.
        lookups: Ids that a step looks up.
        rows: Rows of a rank's batch.
    """
    batch_ids = max(lookups.per_batch.values(), default=0)
    sizes = [(ROWS, 0), (2 * ROWS, 0)]
    if batch_ids:
        sizes = [(b, v) for b in (ROWS, 2 * ROWS) for v in (IDS, 2 * IDS)]
    measured = np.array([_measure(model, schema, lookups, b, v) for b, v in sizes])
    basis = np.array([[1, b, v, b * v][: len(sizes)] for b, v in sizes], float)
    parts, *_ = np.linalg.lstsq(basis, measured, rcond=None)
    whole = np.array([1, rows, batch_ids, lookups.rows_scored * batch_ids][: len(sizes)], float)
    activations, flops = np.maximum(whole @ parts, 0.0)
    return StepCost(float(activations), float(flops))


def _measure(model: TaskModel, schema: Schema, lookups: Lookups, rows: int, batch_ids: int) -> StepCost:
    """Return the cost of one step of so many rows and ids per batch."""
    small = lookups._replace(per_batch=dict.fromkeys(lookups.per_batch, batch_ids))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = _batch(model.tables, schema, small, rows)
        looked_up, leaves = _looked_up(model.tables, batch)
        excluded = {each.untyped_storage().data_ptr() for each in (*leaves, *model.objective.parameters())}
        with FlopCounterMode(display=False) as flops, _saved_bytes(excluded) as saved:
            loss, _ = model.objective(looked_up, batch)
            loss.backward()
    model.objective.zero_grad(set_to_none=True)
    return StepCost(saved(), flops.get_total_flops())


@contextmanager
def _saved_bytes(excluded: set[int]) -> Iterator[Callable[[], int]]:
    """Count the bytes that are saved for the backward pass, each storage once."""
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield lambda: sum(sizes.values())


def _batch(tables: Tables, schema: Schema, lookups: Lookups, rows: int) -> Batch:
    """Return a batch whose ids are as different as the tables allow."""
    keys, values, lengths = [], [], []
    for table in table_configs(tables).values():
        for feature in table.feature_names:
            if feature in keys:  # first-order weights are looked up by the same ids
                continue
            per_row = torch.full((rows,), lookups.per_row.get(feature, 0), device="cpu")
            per_row[0] += lookups.per_batch.get(feature, 0)
            keys.append(feature)
            lengths.append(per_row)
            values.append(torch.arange(int(per_row.sum()), device="cpu") % max(1, table.num_embeddings - 1))
    ids = KeyedJaggedTensor(keys, torch.cat(values), lengths=torch.cat(lengths))
    numbers = torch.arange(rows, device="cpu")
    dense = torch.randn(rows, len(schema.dense), device="cpu")
    return Batch(ids, dense, (numbers % 2).float(), numbers, numbers, torch.ones((), device="cpu"))


def _looked_up(tables: Tables, batch: Batch) -> tuple[Any, list[torch.Tensor]]:
    """Return random rows in the form that the tables return them, and the tensors that hold them."""
    if isinstance(tables, FieldTables):
        pooled: Any = None
        first: list[torch.Tensor] = []
        found, others = _rows(tables.rows, batch)
        if tables.bags is not None:
            pooled, first = _sums(tables.bags, batch)
        return LookedUp(pooled, found), [*first, *others]
    return _sums(tables, batch) if isinstance(tables, EmbeddingBagCollection) else _rows(tables, batch)


def _sums(bags: EmbeddingBagCollection, batch: Batch) -> tuple[Any, list[torch.Tensor]]:
    configs = bags.embedding_bag_configs()
    pairs = zip(configs, get_embedding_names_by_table(configs), strict=True)
    dims = {name: config.embedding_dim for config, names in pairs for name in names}
    pooled = torch.randn(len(batch), sum(dims.values()), device="cpu", requires_grad=True)
    return KeyedTensor(list(dims), list(dims.values()), pooled), [pooled]


def _rows(collection: EmbeddingCollection, batch: Batch) -> tuple[Any, list[torch.Tensor]]:
    found = {}
    for config in collection.embedding_configs():
        for feature in config.feature_names:
            ids = batch.ids[feature]
            rows = torch.randn(len(ids.values()), config.embedding_dim, device="cpu", requires_grad=True)
            found[feature] = JaggedTensor(rows, lengths=ids.lengths())
    return found, [each.values() for each in found.values()]
