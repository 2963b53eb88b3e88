"""Ranking metrics of collaborative filtering: over stored candidates, and over all items. On all ranks.

Shapes: ``B`` users, ``n`` candidates, ``k`` the length of a list, ``W`` ranks, ``d`` width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from cove_dist.config import RANKING_PREFIX, EvaluationConfig, RunConfig
from cove_dist.evaluation.frequency import GROUPS, Groups
from cove_dist.evaluation.search import best_items, merge
from cove_dist.evaluation.top_k import Coverage, TopK
from cove_dist.models.cf.base import Recommender
from cove_dist.tasks.cf_vectors import Vectors, vectors_of
from cove_dist.training.cf_loaders import candidate_loader
from cove_dist.training.distributed import Runtime
from data_pipeline.history import History
from data_pipeline.schema import CANDIDATES, SPLITS, Schema
from data_pipeline.streaming.loader import StreamLoader

Evaluate = Callable[[Recommender, Vectors], dict[str, float]]


def build_cf_evaluator(
    config: RunConfig,
    schema: Schema,
    split: str,
    runtime: Runtime,
    groups: Groups,
) -> Callable[[nn.Module], dict[str, float]]:
    """A pass over a split with a model, which returns the metrics. Building it and calling it are collective.

    With `groups` of users and items the metrics over stored candidates are computed for the rows of each group as well.
    """
    parts: list[Evaluate] = []
    for ranking in config.evaluation.rankings(split):
        if ranking == "sampled":
            loader = candidate_loader(config, schema, split, runtime)
            parts.append(SampledRanking(loader, config.evaluation, groups, runtime))
        else:
            batch_size = config.trainer.rank_evaluation_batch_size(runtime.world_size)
            parts.append(FullRanking(config, schema, split, batch_size, runtime))

    @torch.no_grad()
    def evaluate(model: nn.Module) -> dict[str, float]:
        was_training = model.training
        model.eval()
        inner = model.module
        vectors = vectors_of(inner, schema)
        metrics = {name: value for part in parts for name, value in part(inner.objective.head, vectors).items()}
        model.train(was_training)
        return metrics

    return evaluate


class SampledRanking:
    """Each positive among its stored candidates. Of equal scores the positive ranks last.

    Args:
        loader: rows with candidates, the row's own item first.
        config: the k.
        groups: of users and items, by entity, whose rows count apart as well; a row's item is its positive.
        runtime: of this rank.
    """

    def __init__(
        self,
        loader: StreamLoader,
        config: EvaluationConfig,
        groups: Groups,
        runtime: Runtime,
    ) -> None:
        self._loader, self._device = loader, runtime.device
        self._groups = {entity: group.to(runtime.device) for entity, group in groups.items()}
        self._metrics = TopK(config.ndcg_at, config.hit_rate_at).to(runtime.device)
        self._grouped = {
            (entity, group): TopK(config.ndcg_at, config.hit_rate_at).to(runtime.device)
            for entity in groups
            for group in GROUPS
        }

    def __call__(self, head: Recommender, vectors: Vectors) -> dict[str, float]:
        for metric in (self._metrics, *self._grouped.values()):
            metric.reset()
        for batch in self._loader:
            batch = batch.to(self._device)
            user = batch.ids["user_id"].values()
            items = vectors.items(batch.ids[CANDIDATES].values()).unflatten(0, (len(user), -1))
            scores = head(vectors.users(user), items)
            self._add((scores[:, 1:] >= scores[:, :1]).sum(dim=1), {"user": batch.users, "item": batch.items})
        figures = _floats(self._metrics.compute(), RANKING_PREFIX["sampled"])
        for (entity, group), metric in self._grouped.items():
            of_ids = self._groups[entity].figures[GROUPS.index(group)]
            of_group = of_ids | _floats(metric.compute(), RANKING_PREFIX["sampled"])
            figures |= {f"{name}/{entity}_{group}": value for name, value in of_group.items()}
        return figures

    def _add(self, rank: torch.Tensor, ids: dict[str, torch.Tensor]) -> None:
        """Rows whose positives stand at ranks ``[B]``, from 0."""
        relevant = rank.unsqueeze(1) == torch.arange(self._metrics.depth, device=rank.device)
        one = torch.ones_like(rank)
        self._metrics.update(relevant, one)
        for (entity, group), metric in self._grouped.items():
            rows = self._groups[entity].of(ids[entity]) == GROUPS.index(group)
            metric.update(relevant[rows], one[rows])


class FullRanking:
    """Each user's positives of a split among all items seen in training, but for the user's items of earlier splits.

    Items that training never saw are not ranked; a positive among them is a miss.
    """

    def __init__(self, config: RunConfig, schema: Schema, split: str, batch_size: int, runtime: Runtime) -> None:
        folder, self._runtime = config.data.path, runtime
        self._batch_size = batch_size
        self._positives = History.load(folder, split)
        self._earlier = [History.load(folder, name) for name in SPLITS[: SPLITS.index(split)]]
        self._reserved = schema.entity("user").num_seen
        self._metrics = TopK(config.evaluation.ndcg_at, config.evaluation.hit_rate_at).to(runtime.device)
        self._coverage = Coverage(schema.entity("item").num_seen, config.evaluation.hit_rate_at).to(runtime.device)

    def __call__(self, head: Recommender, vectors: Vectors) -> dict[str, float]:
        self._metrics.reset()
        self._coverage.reset()
        lists = TopLists(head, vectors, self._earlier, self._reserved, self._metrics.depth, self._runtime)
        users = np.flatnonzero(np.diff(self._positives.offsets))
        for part in shares(users, self._batch_size, self._runtime):
            _, items = lists(part)
            if len(part) == 0:
                continue
            relevant = self._positives.contains(part, items.cpu().numpy())
            counts = self._positives.offsets[part + 1] - self._positives.offsets[part]
            self._metrics.update(torch.from_numpy(relevant).to(items.device), torch.from_numpy(counts).to(items.device))
            self._coverage.update(items)
        return _floats(self._metrics.compute() | self._coverage.compute(), RANKING_PREFIX["full"])


class TopLists:
    """The best k items of users, over item vectors that the ranks hold block by block.

    A step takes the users of all ranks to every rank, which scores them against its own block, a chunk at a time; the
    lists of k go back to the user's rank and are merged there. Memory beyond the block: ``W B`` user vectors, one chunk
    of their scores, ``W B k`` list entries.

    Args:
        head: the model.
        vectors: of it.
        excluded: items of these histories are not listed.
        reserved: the table row of users that training never saw.
        k: length of a list.
        runtime: of this rank.
    """

    def __init__(
        self,
        head: Recommender,
        vectors: Vectors,
        excluded: Sequence[History],
        reserved: int,
        k: int,
        runtime: Runtime,
    ) -> None:
        self._head, self._vectors, self._excluded = head, vectors, tuple(excluded)
        self._reserved, self._k, self._runtime = reserved, k, runtime
        self._first, self._items = vectors.item_block()

    def __call__(self, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and items ``[B, k]`` of this rank's ``users [B]`` (ids as stored), best first. Collective.

        Where fewer than k items are left, the rest has score -inf and item -1.
        """
        own = torch.from_numpy(users).to(self._runtime.device)
        all_users = gather_padded(own, -1)
        present = (all_users >= 0).nonzero().squeeze(1)
        queries = gather_padded(self._vectors.users(own.clamp(max=self._reserved)), 0.0)
        found, items = best_items(
            lambda chunk: self._head.score_all(queries, chunk),
            self._items,
            self._first,
            len(queries),
            self._k,
            self._had(all_users, present),
        )
        received = (_to_owners(each, self._runtime.world_size)[:, : len(users)] for each in (found, items))
        return merge(*(each.transpose(0, 1).flatten(1) for each in received), self._k)

    def _had(self, users: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked, rows = users[present].cpu().numpy(), present.cpu().numpy()
        pairs = [history.of(asked) for history in self._excluded]
        places = np.concatenate([rows[place] for place, _ in pairs] or [rows[:0]])
        items = np.concatenate([had for _, had in pairs] or [rows[:0]])
        return torch.from_numpy(places).to(users.device), torch.from_numpy(items).to(users.device)


def shares(users: np.ndarray, batch_size: int, runtime: Runtime) -> Iterator[np.ndarray]:
    """This rank's share of the users, a batch a step; on all ranks the same number of steps, some of them empty."""
    largest = -(-len(users) // runtime.world_size)
    own = users[runtime.rank * largest : (runtime.rank + 1) * largest]
    for start in range(0, largest, batch_size):
        yield own[start : start + batch_size]


def gather_padded(rows: torch.Tensor, value: float) -> torch.Tensor:
    """The rows of all ranks, those of each filled up to the longest. Collective."""
    longest = torch.tensor(len(rows), device=rows.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    padded = rows.new_full((int(longest), *rows.shape[1:]), value)
    padded[: len(rows)] = rows
    whole = rows.new_empty(int(longest) * dist.get_world_size(), *rows.shape[1:])
    dist.all_gather_single(whole, padded)
    return whole


def _to_owners(lists: torch.Tensor, ranks: int) -> torch.Tensor:
    """From the lists that this rank found for the users of all to those that all found for its own: ``[W, B, k]``."""
    received = torch.empty_like(lists)
    dist.all_to_all_single(received, lists.contiguous())
    return received.unflatten(0, (ranks, -1))


def _floats(metrics: dict[str, torch.Tensor], prefix: str) -> dict[str, float]:
    return {prefix + name: int(x) if name == "users" else float(x) for name, x in metrics.items()}
