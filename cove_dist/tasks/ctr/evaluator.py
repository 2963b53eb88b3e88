"""Evaluation of click-through rate models: one pass over a split, on all ranks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
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
from data_pipeline.parquet_files import GroupedWriter
from data_pipeline.schema import ENTITIES, REQUEST, Categorical, Schema
from data_pipeline.streaming.loader import KeptBatches

logger = logging.getLogger(__name__)


class Scored(NamedTuple):
    """A scored batch.

    Attributes:
        batch: The batch, on the device.
        logits: float ``[B]``, or ``[B, T]`` of several labels.
        requests: Requests of the rows, int64 ``[B]``, if grouped by request.
    """

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


def ctr_loader(config: CTRRunConfig, schema: Schema, split: str, context: DistributedContext) -> KeptBatches:
    """Load a split for evaluation: all rows of a user on one rank, with their requests if metrics are per request.

    Raises:
        ConfigError: Metrics are per request and the data have no requests.
    """
    if config.evaluation.protocol(schema).group_by == REQUEST:
        requests = Categorical(REQUEST, num_ids=schema.requests, num_seen=schema.requests)
        schema = replace(schema, categorical=(*schema.categorical, requests))
    return evaluation_loader(config, config.ctr.of(schema), split, context)


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
    loader, labels = ctr_loader(config, schema, split, context), tuple(config.ctr.weights)

    def evaluate_model(model: nn.Module) -> dict[str, float]:
        scored = score(model, loader, context.device)
        if predictions is not None:
            path = predictions / f"part-{context.rank:05d}.parquet"
            by_request = config.evaluation.group_by == REQUEST
            scored = PredictionWriter(path, Path(config.data.path), schema, by_request, labels).write(scored)
        return evaluate(scored, config.evaluation, context.device, groups, labels)

    return evaluate_model


def evaluate(
    scored: Iterable[Scored],
    config: CTREvaluationConfig,
    device: torch.device,
    by_frequency: Groups,
    labels: Sequence[str] = (),
) -> dict[str, float]:
    """Compute the metrics over all ranks, the same on each; undefined ones are nan and logged as a warning.

    Args:
        scored: Scored batches; every user's rows on one rank, in order of user id.
        config: Cutoffs k of the ranking metrics, whether these are per user or per request, and whether AUC and
            metrics over samples are weighted.
        device: Device of the batches.
        by_frequency: Groups of ids, by entity, with separate metrics, of the first label.
        labels: Several labels T of logits ``[B, T]``, each with metrics ``<metric>/<label>``; the first one's also have
            no suffix. Empty: the logits are ``[B]``.
    """
    build = partial(
        CTRMetrics,
        ndcg_at=config.ndcg_at,
        hit_rate_at=config.hit_rate_at,
        group_by=config.group_by or "user_id",
        own=[each.build for each in config.own(CheckedMetric)],
        weighted=config.weighted,
    )
    names: Sequence[str | None] = labels or [None]
    overall = [build().to(device) for _ in names]
    grouped = FrequencyMetrics(by_frequency, build).to(device)
    for batch, logits, requests in scored:
        weights = batch.sample_weights if config.weighted else None
        columns = _columns(logits, batch.labels)
        for metric, column in zip(overall, columns, strict=True):
            metric.update(*column, batch.users, requests, weights)
        grouped.update(*columns[0], batch.users, batch.items, requests, weights)
    found = [_defined(metric, label) for metric, label in zip(overall, names, strict=True)]
    of_labels = zip(labels, found, strict=False)  # without labels by name there is one
    named = [{f"{name}/{label}": value for name, value in each.items()} for label, each in of_labels]
    return reduce(or_, [found[0], *named, grouped.compute()])


def _columns(logits: torch.Tensor, labels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return logits and labels ``[B]`` of each label."""
    return [(logits, labels)] if logits.dim() == 1 else list(zip(logits.unbind(1), labels.unbind(1), strict=True))


def _defined(metric: CTRMetrics, label: str | None) -> dict[str, float]:
    """Compute the metrics of a label, and warn about undefined ones."""
    metrics = metric.compute()
    loose = not math.isnan(metrics["auc_error"])  # then the undefined AUC was already warned about
    if undefined := [name for name, value in metrics.items() if math.isnan(value) and not (name == "auc" and loose)]:
        logger.warning(
            "Skipping %s%s: the split has no positives, no negatives, or no users with both",
            ", ".join(undefined), f" of the label {label}" if label else "",
        )  # fmt: skip
    return metrics


class PredictionWriter:
    """Writes scored batches as Parquet and passes them on: user, item (original ids), label, score (a probability).

    Of several labels these are label and score of the first; those of each are in ``label_<name>``, ``score_<name>``.
    Where the data have sample weights, ``weight`` is the row's, with which weighted metrics are computed.

    Args:
        path: The file.
        data, schema: Prepared data.
        by_request: Whether batches have requests, which are then written as well, in front of the label.
        labels: Several labels of the logits.
    """

    def __init__(
        self, path: Path, data: Path, schema: Schema, by_request: bool = False, labels: Sequence[str] = ()
    ) -> None:
        self.path, self.labels, self._weighted = path, tuple(labels), schema.weight is not None
        tables: dict[str, str] = {role: schema.entity(role).table_name for role in ENTITIES}
        tables |= {"request": REQUEST} if by_request else {}
        self._original: dict[str, pa.Array] = {role: read_original_ids(data, table) for role, table in tables.items()}

    def write(self, scored: Iterable[Scored]) -> Iterator[Scored]:
        schema = pa.schema(
            [(role, ids.type) for role, ids in self._original.items()]
            + [(f"{kind}{suffix}", pa.float32()) for suffix in self._suffixes for kind in ("label", "score")]
            + ([("weight", pa.float32())] if self._weighted else [])
        )
        with GroupedWriter(self.path, schema) as writer:
            for each in scored:
                batch, logits, requests = each
                columns = [self._ids("user", batch.users), self._ids("item", batch.items)]
                columns += [] if requests is None else [self._ids("request", requests)]
                scores = torch.sigmoid(logits.double()).float()
                pairs = _columns(scores, batch.labels)
                pairs = [pairs[0], *pairs] if self.labels else pairs
                columns += [_array(each) for score, label in pairs for each in (label, score)]
                columns += [_array(batch.sample_weights)] if self._weighted else []
                writer.write_batch(pa.record_batch(columns, schema=schema))
                yield each

    @property
    def _suffixes(self) -> list[str]:
        return ["", *(f"_{label}" for label in self.labels)]

    def _ids(self, role: str, encoded: torch.Tensor) -> pa.Array:
        return self._original[role].take(_array(encoded))


def _array(tensor: torch.Tensor) -> pa.Array:
    return pa.array(np.asarray(tensor.cpu()))
