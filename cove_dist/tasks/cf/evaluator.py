"""Ranking metrics of collaborative filtering over stored candidates and over all items, on all ranks.

Shapes: ``B`` users, ``n`` candidates, ``k`` the length of a list, ``W`` ranks, ``d`` width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from cove_dist.distributed import DistributedContext, batches_of_block, world
from cove_dist.evaluation.checks import FiniteScores
from cove_dist.evaluation.frequency import GROUPS, Groups
from cove_dist.evaluation.own import ListMetric
from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.top_k import Coverage, TopK, UserCount
from cove_dist.faults.agreement import interruptible
from cove_dist.models.cf.base import Recommender, ScoreRows
from cove_dist.tasks.base import inner_model
from cove_dist.tasks.cf.config import RANKING_PREFIX, CFEvaluationConfig, CFRunConfig
from cove_dist.tasks.cf.loaders import candidate_loader
from cove_dist.tasks.cf.model import CFTaskModel
from cove_dist.tasks.cf.retrieval import TopKRetriever
from cove_dist.tasks.cf.vectors import Vectors, vectors_of
from data_pipeline.batch import Batch
from data_pipeline.history import History
from data_pipeline.schema import CANDIDATES, SPLITS, Schema

Evaluate = Callable[[Recommender, Vectors], dict[str, float]]

_ROWS_AT_ONCE = 1 << 14  # rows with which metrics are updated


class Rows(NamedTuple):
    """Rows ``[B]``: numbers of candidates scored higher, and equal with the positive; users and positives."""

    above: torch.Tensor
    tied: torch.Tensor
    users: torch.Tensor
    items: torch.Tensor


def build_cf_evaluator(
    config: CFRunConfig,
    schema: Schema,
    split: str,
    context: DistributedContext,
    groups: Groups,
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the evaluator of a split. Building and calling it are collective.

    With `groups` of users and items, the metrics over stored candidates are computed for each group as well.
    """
    rank = build_cf_ranking(config, schema, split, context, groups)

    @torch.no_grad()
    def evaluate(model: nn.Module) -> dict[str, float]:
        was_training = model.training
        model.eval()
        inner = inner_model(model, CFTaskModel)
        metrics = rank(inner.objective.head, vectors_of(inner, schema, context.device))
        model.train(was_training)
        return metrics

    return evaluate


def build_cf_ranking(
    config: CFRunConfig, schema: Schema, split: str, context: DistributedContext, groups: Groups
) -> Evaluate:
    """Build the function from a head and vectors to the metrics of a split. Building and calling it are collective."""
    parts: list[Evaluate] = []
    for ranking in config.evaluation.rankings(split):
        if ranking == "sampled":
            loader = candidate_loader(config, schema, split, context)
            parts.append(SampledRanking(loader, config.evaluation, groups, context))
        else:
            batch_size = config.trainer.rank_evaluation_batch_size(context.world_size)
            parts.append(FullRanking(config, schema, split, batch_size, context))

    @torch.no_grad()
    def rank(head: Recommender, vectors: Vectors) -> dict[str, float]:
        return {name: value for part in parts for name, value in part(head, vectors).items()}

    return rank


class SampledRanking:
    """Ranks each positive among its stored candidates; averages over rows (a user with several positives has several).

    Candidates with the same score as the positive count in expectation over all orders; see `Positions`.

    Args:
        loader: Rows with candidates, the positive first; all rows of a user on one rank, sorted by user.
        config: Cutoffs k of the metrics.
        groups: Groups of users and items, by entity, with separate metrics; a row's item is its positive.
        context: Context of this rank.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        config: CFEvaluationConfig,
        groups: Groups,
        context: DistributedContext,
    ) -> None:
        def metrics() -> RowMetrics:
            return RowMetrics(config, context.device)

        self._loader, self._device = loader, context.device
        self._groups = {entity: group.to(context.device) for entity, group in groups.items()}
        self._finite = FiniteScores().to(context.device)
        self._metrics = metrics()
        self._grouped = {(entity, group): metrics() for entity in groups for group in GROUPS}
        self._waiting: list[Rows] = []

    def __call__(self, head: Recommender, vectors: Vectors) -> dict[str, float]:
        self._finite.reset()
        self._waiting.clear()  # of an evaluation that was interrupted
        for metrics in (self._metrics, *self._grouped.values()):
            metrics.reset()
        score = candidate_scorer(head, vectors)
        for batch in interruptible(self._loader):
            batch = batch.to(self._device)
            user = batch.ids["user_id"].values()
            candidates = batch.ids[CANDIDATES].values()
            width = len(candidates) // max(1, len(user))  # a rank with fewer rows ends with empty batches
            scores = score(vectors.users(user), candidates.view(len(user), width))
            self._finite.update(scores)
            self._add(scores, batch.users, batch.items)
        self._update()
        self._finite.compute()
        values = self._metrics.compute()
        for (entity, group), metric in self._grouped.items():
            of_ids = self._groups[entity].statistics[GROUPS.index(group)]
            values |= {f"{name}/{entity}_{group}": value for name, value in (of_ids | metric.compute()).items()}
        return values

    def _add(self, scores: torch.Tensor, users: torch.Tensor, items: torch.Tensor) -> None:
        """Add rows of scores ``[B, n]``, the positive's first. Metrics get many batches at once, which is faster."""
        positive, others = scores[:, :1], scores[:, 1:]
        above, tied = (others > positive).sum(dim=1), 1 + (others == positive).sum(dim=1)
        self._waiting.append(Rows(above, tied, users, items))
        if len(self._waiting) * len(above) >= _ROWS_AT_ONCE:
            self._update()

    def _update(self) -> None:
        """Update the metrics with the rows that wait."""
        if not self._waiting:
            return
        above, tied, users, items = map(torch.cat, zip(*self._waiting, strict=True))
        self._waiting.clear()
        self._metrics.update(above, tied, users)
        ids = {"user": users, "item": items}
        for (entity, group), metric in self._grouped.items():
            rows = self._groups[entity].of(ids[entity]) == GROUPS.index(group)
            metric.update(above[rows], tied[rows], users[rows])


def candidate_scorer(head: Recommender, vectors: Vectors) -> ScoreRows:
    """Return the function from vectors of users ``[B, d]`` and items, int64 ``[B, n]``, to scores ``[B, n]``."""
    items = vectors.all_items()
    if items is not None:
        return head.scorer(items)
    return lambda users, rows: head(users, vectors.items(rows.flatten()).unflatten(0, rows.shape))


class RowMetrics:
    """Metrics of rows with one positive each, and the numbers of rows and users."""

    def __init__(self, config: CFEvaluationConfig, device: torch.device) -> None:
        self._top_k = TopK(config.ndcg_at, config.hit_rate_at).to(device)
        self._own = own_metrics(config, device)
        self._users = UserCount().to(device)

    def reset(self) -> None:
        """Reset the metrics."""
        for metric in (self._top_k, *self._own, self._users):
            metric.reset()

    def update(self, above: torch.Tensor, tied: torch.Tensor, users: torch.Tensor) -> None:
        """Add rows ``[B]``: number of candidates scored higher, number scored equal (with the positive), users."""
        rows = torch.arange(len(above), device=above.device)
        positions = Positions(rows, above, tied, len(rows), self._top_k.depth)
        for metric in (self._top_k, *self._own):
            metric.update(positions, torch.ones_like(above))
        self._users.update(users)

    def compute(self) -> dict[str, float]:
        """Return the metrics by name, ``users`` (distinct) and ``rows``, over all ranks. Collective."""
        metrics = self._top_k.compute()
        rows = metrics.pop("lists")
        for metric in self._own:
            metrics |= metric.compute()
        return _floats(metrics | {"users": self._users.compute(), "rows": rows}, RANKING_PREFIX["sampled"])


class FullRanking:
    """Ranks a user's positives of a split among all items seen in training, except the user's items of earlier splits.

    Unseen items are not ranked; an unseen positive is a miss, and so is one that the user also has in an earlier split.
    Items of equal score count in expectation over all orders (see `Positions`), whichever ranks hold them; coverage is
    computed from the lists that `recommend` would write.
    """

    def __init__(
        self, config: CFRunConfig, schema: Schema, split: str, batch_size: int, context: DistributedContext
    ) -> None:
        folder, self._context = config.data.path, context
        self._batch_size = batch_size
        self._positives = History.load(folder, split)
        self._earlier = [History.load(folder, name) for name in SPLITS[: SPLITS.index(split)]]
        self._reserved = schema.entity("user").num_seen
        self._metrics = TopK(config.evaluation.ndcg_at, config.evaluation.hit_rate_at).to(context.device)
        self._own = own_metrics(config.evaluation, context.device)
        self._coverage = Coverage(schema.entity("item").num_seen, config.evaluation.hit_rate_at).to(context.device)

    def __call__(self, head: Recommender, vectors: Vectors) -> dict[str, float]:
        for metric in (self._metrics, *self._own, self._coverage):
            metric.reset()
        retriever = TopKRetriever(head, vectors, self._earlier, self._reserved, self._metrics.depth, self._context)
        users = np.flatnonzero(np.diff(self._positives.offsets))
        for part in interruptible(batches_of_block(users, self._batch_size, world())):
            items, positions = retriever.rank(part, self._positives)
            positives = torch.bincount(positions.lists, minlength=len(part))
            for metric in (self._metrics, *self._own):
                metric.update(positions, positives)
            self._coverage.update(items)
        retriever.finite.compute()
        metrics = self._metrics.compute() | self._coverage.compute()
        for metric in self._own:
            metrics |= metric.compute()
        return _floats(metrics | {"users": metrics.pop("lists")}, RANKING_PREFIX["full"])


def own_metrics(config: CFEvaluationConfig, device: torch.device) -> list[ListMetric]:
    """Build the metrics that the configuration adds."""
    return [each.build(config.ndcg_at, config.hit_rate_at).to(device) for each in config.own(ListMetric)]


_COUNTS = ("users", "rows")


def _floats(metrics: dict[str, torch.Tensor], prefix: str) -> dict[str, float]:
    return {prefix + name: int(x) if name in _COUNTS else float(x) for name, x in metrics.items()}
