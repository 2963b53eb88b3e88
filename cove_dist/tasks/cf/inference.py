"""Inference with a trained collaborative filtering model, from the vectors that evaluation ranks with."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn

from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.serving import Precision, ServingTable
from cove_dist.errors import ConfigError
from cove_dist.models.cf.base import InnerProductRecommender, Recommender
from cove_dist.tasks.cf.config import CFRunConfig
from cove_dist.tasks.cf.evaluator import build_cf_ranking
from cove_dist.tasks.cf.fold_in import (
    FoldInSettings,
    Frozen,
    Neighbors,
    fold_in,
    fold_in_obstacle,
    weight_decay_of,
)
from cove_dist.tasks.cf.model import CFTaskModel
from cove_dist.tasks.cf.new_rows import Trained, draw_pool
from cove_dist.tasks.cf.retrieval import TopKRetriever
from cove_dist.tasks.cf.vectors import Vectors, vectors_of
from cove_dist.tasks.inference import AT_ONCE, NO_CONTEXT, ContextFeatures, Inference, Lists, Program, ProgramInput
from data_pipeline.history import History
from data_pipeline.schema import ENTITIES, OTHER_ENTITY, SPLITS, Entity
from data_pipeline.streaming.negatives import RowNegatives

_AT_ONCE_FOLDED = 256  # new ids scored at a time


class CFInference(Inference[CFTaskModel]):
    """Inference for collaborative filtering. Scores are inner products, or NeuMF's logits."""

    config: CFRunConfig

    @cached_property
    def _vectors(self) -> Vectors:
        return vectors_of(self.model, self.schema, self.device)

    @torch.no_grad()
    def score(self, users: np.ndarray, items: np.ndarray, context: ContextFeatures = NO_CONTEXT) -> np.ndarray:
        pairs = zip(self._rows(users), self._rows(items), strict=True)
        head = self.model.objective.head
        parts = [head(self._vectors.users(u), self._vectors.items(i).unsqueeze(1)).squeeze(1) for u, i in pairs]
        return torch.cat(parts).float().cpu().numpy()

    def recommend(self, users: np.ndarray, k: int, *, repeat: bool, context: ContextFeatures = NO_CONTEXT) -> Lists:
        [lists] = self.recommend_batches([users], k, repeat=repeat, context=context)
        return lists

    @torch.no_grad()
    def recommend_batches(
        self, batches: Sequence[np.ndarray], k: int, *, repeat: bool, context: ContextFeatures = NO_CONTEXT
    ) -> Iterator[Lists]:
        splits = [] if repeat else [split for split in SPLITS if self.schema.has_split(split)]
        histories = [History.load(self.config.data.path, split) for split in splits]
        one_process = DistributedContext(0, 1, 1, self.device)
        reserved = self.schema.entity("user").num_seen
        retriever = TopKRetriever(self.model.objective.head, self._vectors, histories, reserved, k, one_process)
        for users in batches:
            scores, items = retriever(users)
            retriever.finite.compute()
            yield Lists(scores.cpu().numpy(), items.cpu().numpy())

    def check_fold_in(self) -> None:
        if (obstacle := fold_in_obstacle(self.model.objective)) is not None:
            raise ConfigError(f"fold_in: not with {self.config.model.name}: {obstacle}")

    @torch.no_grad()
    def fold_in(
        self, entity: Entity, rows: np.ndarray, others: np.ndarray, count: int, steps: int, learning_rate: float
    ) -> np.ndarray:
        self.check_fold_in()
        objective = self.model.objective
        decay = weight_decay_of(self.config.embeddings.optimizer, self._history, entity)
        settings = FoldInSettings(steps, learning_rate, self.config.seed, decay)
        width = objective.head.rows_per_id * self.config.embeddings.dim
        look_up = self._vectors.items if entity == "user" else self._vectors.users
        neighbors = Neighbors(np.arange(count), rows, others, look_up(torch.from_numpy(others).to(self.device)))
        start = torch.zeros(count, width, device=self.device)
        folded = fold_in(self._frozen, entity, start, neighbors, settings)
        return objective.fuse(entity, folded)[0].cpu().numpy()

    @torch.no_grad()
    def recommend_folded_in(
        self, entity: Entity, vectors: np.ndarray, k: int, excluded: tuple[np.ndarray, np.ndarray]
    ) -> Lists:
        head, new = self.model.objective.head, torch.from_numpy(vectors).to(self.device)
        trained = torch.from_numpy(self.vectors(OTHER_ENTITY[entity])).to(self.device)
        score = head.score_all if entity == "user" else lambda items, users: head.score_all(users, items).T
        scores, found = [], []
        for start in range(0, len(new), _AT_ONCE_FOLDED):
            part = score(new[start : start + _AT_ONCE_FOLDED], trained).float()
            mine = (excluded[0] >= start) & (excluded[0] < start + len(part))
            part[torch.from_numpy(excluded[0][mine] - start), torch.from_numpy(excluded[1][mine])] = -torch.inf
            best, ids = (each[:, :k] for each in part.sort(dim=1, descending=True, stable=True))
            scores.append(best.cpu().numpy())
            found.append(np.where(np.isfinite(scores[-1]), ids.cpu().numpy(), -1))
        return Lists(np.concatenate(scores), np.concatenate(found))

    @cached_property
    def _history(self) -> History:
        return History.load(self.config.data.path, "train")

    @cached_property
    def _frozen(self) -> Frozen:
        trained: Trained = {entity: np.ones(self.schema.entity(entity).num_seen, bool) for entity in ENTITIES}
        pool = draw_pool(self._history, trained, self._vectors, self.config.seed, self.device)
        has = RowNegatives(self._history, self.schema.entity("item").num_seen).has
        return Frozen(self.model.objective, pool, has)

    @torch.no_grad()
    def item_keys(self) -> np.ndarray:
        head = self.model.objective.head
        if not isinstance(head, InnerProductRecommender):
            return super().item_keys()
        return head.key(torch.from_numpy(self.vectors("item"))).numpy()

    def programs(self, precision: Precision = "float32") -> dict[str, Program]:
        columns = [self.schema.entity(entity) for entity in ENTITIES]
        example = torch.arange(3, device="cpu").unsqueeze(1).expand(3, 2).contiguous()
        inputs = {"ids": ProgramInput(example, ("rows", 2), ", ".join(column.name for column in columns))}
        meaning = "[rows]: the score by which the model ranks"
        return {"model": Program(self._pair_scores(precision), inputs, columns, "scores", meaning)}

    def evaluate(self, split: str, context: DistributedContext, precision: Precision) -> dict[str, float]:
        served = self._pair_scores(precision).to(context.device)
        vectors = ServedVectors(served, self.schema.entity("item").num_seen)
        return build_cf_ranking(self.config, self.schema, split, context, {})(served.head, vectors)

    @torch.no_grad()
    def _pair_scores(self, precision: Precision) -> PairScores:
        """Return the model as a program on the CPU."""
        rows = {name: torch.arange(self.schema.entity(name).num_rows, device=self.device) for name in ENTITIES}
        users, items = self._vectors.users(rows["user"]), self._vectors.items(rows["item"])
        head = copy.deepcopy(self.model.objective.head)
        return PairScores(head, ServingTable(users, precision), ServingTable(items, precision)).cpu().eval()

    @torch.no_grad()
    def vectors(self, entity: Entity) -> np.ndarray:
        look_up = self._vectors.users if entity == "user" else self._vectors.items
        ids = torch.arange(self.schema.entity(entity).num_seen, device=self.device)
        return torch.cat([look_up(part) for part in ids.split(AT_ONCE)]).cpu().numpy()

    def _rows(self, ids: np.ndarray) -> tuple[torch.Tensor, ...]:
        return torch.from_numpy(ids.astype(np.int64)).to(self.device).split(AT_ONCE)


class PairScores(nn.Module):
    """Scores of pairs from whole tables of final vectors.

    Args:
        head: The model.
        users, items: Tables ``[num_rows, d]``.
    """

    def __init__(self, head: Recommender, users: ServingTable, items: ServingTable) -> None:
        super().__init__()
        self.head, self.users, self.items = head, users, items

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return scores ``[rows]`` of ``ids [rows, 2]``: user and item."""
        return self.head(self.users(ids[:, 0]), self.items(ids[:, 1]).unsqueeze(1)).squeeze(1)


class ServedVectors:
    """The vectors of an exported model on the only rank, for evaluation; see `Vectors`.

    Args:
        served: The exported model.
        num_seen: Number of items seen in training.
    """

    def __init__(self, served: PairScores, num_seen: int) -> None:
        self.users, self.items, self._num_seen = served.users, served.items, num_seen

    def all_items(self) -> torch.Tensor:
        return self.items.first(len(self.items.values))

    def item_block(self) -> tuple[int, torch.Tensor]:
        return 0, self.items.first(self._num_seen)
