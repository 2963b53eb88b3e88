"""Evaluation of click-through rate models: one pass over a split, on all ranks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from cove_dist.distributed import DistributedContext
from cove_dist.evaluation import CTRMetrics, FrequencyMetrics, Groups
from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.faults.agreement import interruptible
from cove_dist.tasks.ctr.config import CTREvaluationConfig, CTRRunConfig
from cove_dist.tasks.ctr.model import Predictions
from cove_dist.tasks.loaders import evaluation_loader
from data_pipeline.batch import Batch
from data_pipeline.id_tables import read_original_ids
from data_pipeline.schema import ENTITIES, REQUEST, Categorical, Schema
from data_pipeline.streaming.loader import StreamLoader

logger = logging.getLogger(__name__)


class Scored(NamedTuple):
    """A batch on the device, its logits float ``[B]``, and its rows' requests, int64 ``[B]`` if grouped by request."""

    batch: Batch
    logits: torch.Tensor
    requests: torch.Tensor | None


@torch.no_grad()
def score(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[Scored]:
    """Yield each batch with its logits. Collective: every rank has the same number of batches."""
    was_training = model.training
    model.eval()
    for batch in interruptible(batches):
        batch, requests = _without_requests(batch.to(device, non_blocking=True))
        predictions: Predictions = model(batch)[1]
        yield Scored(batch, predictions.logits, requests)
    model.train(was_training)


def _without_requests(batch: Batch) -> tuple[Batch, torch.Tensor | None]:
    """Take the requests out of the ids: the keys of a look-up must be those of training."""
    keys = batch.ids.keys()
    if REQUEST not in keys:
        return batch, None
    ids, requests = batch.ids.split([len(keys) - 1, 1])  # requests are the last key, see `ctr_loader`
    return replace(batch, ids=ids), requests.values()


def ctr_loader(config: CTRRunConfig, schema: Schema, split: str, context: DistributedContext) -> StreamLoader:
    """Load a split for evaluation: all rows of a user on one rank, with their requests if metrics are per request.

    Raises:
        ConfigError: Metrics are per request and the data have no requests.
    """
    if config.evaluation.protocol(schema).group_by == REQUEST:
        requests = Categorical(REQUEST, num_ids=schema.requests, num_seen=schema.requests)
        schema = replace(schema, categorical=(*schema.categorical, requests))
    return evaluation_loader(config, schema, split, context)


def build_ctr_evaluator(
    config: CTRRunConfig,
    schema: Schema,
    split: str,
    context: DistributedContext,
    groups: Groups,
    predictions: Path | None = None,
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the evaluator of a split. Building and calling it are collective.

    Args:
        config, schema, split, context: Configuration, data, split and distributed context of the run.
        groups: Groups of ids for which the metrics are computed as well.
        predictions: Folder for the score of every row, one part per rank; None: write none.
    """
    loader = ctr_loader(config, schema, split, context)

    def evaluate_model(model: nn.Module) -> dict[str, float]:
        scored = score(model, loader, context.device)
        if predictions is not None:
            path = predictions / f"part-{context.rank:05d}.parquet"
            by_request = config.evaluation.group_by == REQUEST
            scored = PredictionWriter(path, Path(config.data.path), schema, by_request).write(scored)
        return evaluate(scored, config.evaluation, context.device, groups)

    return evaluate_model


def evaluate(
    scored: Iterable[Scored],
    config: CTREvaluationConfig,
    device: torch.device,
    by_frequency: Groups,
) -> dict[str, float]:
    """Compute the metrics over all ranks, the same on each; undefined ones are nan and logged as a warning.

    Args:
        scored: Scored batches; every user's rows on one rank, in order of user id.
        config: Cutoffs k of the ranking metrics, and whether these are per user or per request.
        device: Device of the batches.
        by_frequency: Groups of ids, by entity, with separate metrics.
    """
    own = [each.build for each in config.own(CheckedMetric)]
    settings = (config.ndcg_at, config.hit_rate_at, config.group_by or "user_id", own)
    overall = CTRMetrics(*settings).to(device)
    grouped = FrequencyMetrics(by_frequency, *settings).to(device)
    for batch, logits, requests in scored:
        overall.update(logits, batch.labels, batch.users, requests)
        grouped.update(logits, batch.labels, batch.users, batch.items, requests)
    metrics = overall.compute()
    loose = not math.isnan(metrics["auc_error"])  # then the undefined AUC was already warned about
    if undefined := [name for name, value in metrics.items() if math.isnan(value) and not (name == "auc" and loose)]:
        logger.warning(
            "Skipping %s: the split has no positives, no negatives, or no users with both", ", ".join(undefined)
        )
    return metrics | grouped.compute()


class PredictionWriter:
    """Writes scored batches as Parquet and passes them on: user, item (original ids), label, score (a probability).

    Args:
        path: The file.
        data, schema: Prepared data.
        by_request: Whether batches have requests, which are then written as well, in front of the label.
    """

    def __init__(self, path: Path, data: Path, schema: Schema, by_request: bool = False) -> None:
        self.path = path
        tables = {role: schema.entity(role).table_name for role in ENTITIES}
        tables |= {"request": REQUEST} if by_request else {}
        self._original: dict[str, pa.Array] = {role: read_original_ids(data, table) for role, table in tables.items()}

    def write(self, scored: Iterable[Scored]) -> Iterator[Scored]:
        schema = pa.schema(
            [(role, ids.type) for role, ids in self._original.items()]
            + [("label", pa.float32()), ("score", pa.float32())]
        )
        with pq.ParquetWriter(self.path, schema) as writer:
            for each in scored:
                batch, logits, requests = each
                columns = [self._ids("user", batch.users), self._ids("item", batch.items)]
                columns += [] if requests is None else [self._ids("request", requests)]
                columns += [_array(batch.labels), _array(torch.sigmoid(logits.double()).float())]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                yield each

    def _ids(self, role: str, encoded: torch.Tensor) -> pa.Array:
        return self._original[role].take(_array(encoded))


def _array(tensor: torch.Tensor) -> pa.Array:
    return pa.array(np.asarray(tensor.cpu()))
