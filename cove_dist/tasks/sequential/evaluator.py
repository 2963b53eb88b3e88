"""Evaluation of sequential models: every rank continues its sequences of a split, and metrics are summed over ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cove_dist.distributed import DistributedContext
from cove_dist.evaluation.own import ListMetric
from cove_dist.evaluation.sequential import NOTHING, ListCompletion, merge_depth_first
from cove_dist.faults.agreement import interruptible
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.base import inner_model
from cove_dist.tasks.loaders import evaluation_loader
from cove_dist.tasks.sequential.catalogue import item_catalogue, owner_table
from cove_dist.tasks.sequential.config import SequentialRunConfig
from cove_dist.tasks.sequential.decoding import Request, continue_sequences, rank_next
from cove_dist.tasks.sequential.model import SequentialTaskModel
from cove_dist.tasks.sequential.padding import Slots, sent
from cove_dist.tasks.sequential.ranking import Catalogue
from data_pipeline.batch import Batch
from data_pipeline.schema import INPUT, OWNER, TARGET, Schema


def build_sequential_evaluator(
    config: SequentialRunConfig, schema: Schema, split: str, context: DistributedContext
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the evaluator of a split. Building and calling it are collective."""
    rank = build_sequential_ranking(config, schema, split, context)

    def evaluate(sharded: nn.Module) -> dict[str, float]:
        model = inner_model(sharded, SequentialTaskModel)
        was_training = model.training
        model.eval()
        catalogue = item_catalogue(model, schema, context.device)
        metrics = rank(model.objective.model, catalogue, owner_table(model, schema, context.device))
        model.train(was_training)
        return metrics

    return evaluate


def build_sequential_ranking(
    config: SequentialRunConfig, schema: Schema, split: str, context: DistributedContext
) -> Callable[[SequentialModel, Catalogue, torch.Tensor | None], dict[str, float]]:
    """Build the function from a model, its catalogue and the table of owners to the metrics of a split. Collective."""
    loader = evaluation_loader(config, schema, split, context)
    exclude_seen = config.evaluation.protocol(schema).exclude_seen

    def rank(model: SequentialModel, catalogue: Catalogue, owners: torch.Tensor | None) -> dict[str, float]:
        metrics = sequential_metrics(config, schema).to(context.device)
        for batch in interruptible(loader):
            batch = batch.to(context.device, non_blocking=True)
            owner = None if owners is None else owners[batch.ids[OWNER].values()]
            request, targets = to_request(batch, owner, exclude_seen)
            add_sequences(metrics, model, catalogue, request, targets)
        catalogue.finite.compute()
        return metric_values(metrics)

    return rank


def add_sequences(
    metrics: ListCompletion, model: SequentialModel, catalogue: Catalogue, request: Request, targets: torch.Tensor
) -> None:
    """Continue sequences and update the metrics; sequences with one target use the exact position of the target.

    Args:
        metrics: Metrics to update.
        model, catalogue, request: As in `continue_sequences`.
        targets: True items, int64 ``[B, S]``, padded with `NOTHING`.
    """
    single = request.targets == 1
    if single.any():
        positions = rank_next(model, catalogue, request.of(single), targets[single, 0], metrics.depth)
        metrics.update(positions, targets[single])
    if not single.all():
        ranked = continue_sequences(model, catalogue, request.of(~single), metrics.depth)
        metrics.update(merge_depth_first(ranked, metrics.depth), targets[~single])


def sequential_metrics(config: SequentialRunConfig, schema: Schema) -> ListCompletion:
    settings = config.evaluation
    own = [each.build(settings.ndcg_at, settings.hit_rate_at) for each in settings.own(ListMetric)]
    unseen = schema.entity("item").num_seen
    return ListCompletion(settings.ndcg_at, settings.hit_rate_at, unseen, schema.longest_target, own)


def metric_values(metrics: ListCompletion) -> dict[str, float]:
    """Return the metrics over all ranks as floats. Collective."""
    return {name: value.item() for name, value in metrics.compute().items()}


def to_request(batch: Batch, owner: torch.Tensor | None, exclude_seen: bool) -> tuple[Request, torch.Tensor]:
    """Return the request of a batch, and the true items ``[B, S]`` padded with `NOTHING`.

    Args:
        batch: Batch of sequences.
        owner: Embeddings of the owners ``[B, d]``, or None.
        exclude_seen: Whether to exclude items of a sequence's input from its ranking.
    """
    halves = []
    for half in (INPUT, TARGET):
        halves.append((Slots.of(batch.lengths_of(half)), batch.ids[half].values()))
    (inputs, input_items), (targets, target_items) = halves
    seen = inputs.pad(input_items, fill=NOTHING) if exclude_seen else None
    num_inputs, num_targets = (sent(slots.lengths, input_items.device) for slots in (inputs, targets))
    request = Request(inputs.pad(input_items), num_inputs, num_targets, owner, seen)
    return request, targets.pad(target_items, fill=NOTHING)
