"""Inference with a trained collaborative filtering model, from the vectors that evaluation ranks with."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import nn

from cove_dist.distributed import DistributedContext
from cove_dist.models.cf.base import InnerProductRecommender, Recommender
from cove_dist.tasks.cf.model import CFModel
from cove_dist.tasks.cf.retrieval import TopKRetriever
from cove_dist.tasks.cf.vectors import Vectors, vectors_of
from cove_dist.tasks.inference import AT_ONCE, NO_CONTEXT, Context, Inference, Lists, Program
from data_pipeline.history import History
from data_pipeline.schema import SPLITS, Entity


class CFInference(Inference[CFModel]):
    """Inference for collaborative filtering. Scores are inner products, or NeuMF's logits."""

    @cached_property
    def _vectors(self) -> Vectors:
        return vectors_of(self.model, self.schema, self.device)

    @torch.no_grad()
    def score(self, users: np.ndarray, items: np.ndarray, context: Context = NO_CONTEXT) -> np.ndarray:
        pairs = zip(self._rows(users), self._rows(items), strict=True)
        head = self.model.objective.head
        parts = [head(self._vectors.users(u), self._vectors.items(i).unsqueeze(1)).squeeze(1) for u, i in pairs]
        return torch.cat(parts).float().cpu().numpy()

    @torch.no_grad()
    def recommend(self, users: np.ndarray, k: int, *, repeat: bool, context: Context = NO_CONTEXT) -> Lists:
        splits = [] if repeat else [split for split in SPLITS if self.schema.has_split(split)]
        histories = [History.load(self.config.data.path, split) for split in splits]
        alone = DistributedContext(0, 1, 1, self.device)
        reserved = self.schema.entity("user").num_seen
        retriever = TopKRetriever(self.model.objective.head, self._vectors, histories, reserved, k, alone)
        scores, items = retriever(users)
        retriever.finite.compute()
        return Lists(scores.cpu().numpy(), items.cpu().numpy())

    @torch.no_grad()
    def item_keys(self) -> np.ndarray:
        head = self.model.objective.head
        if not isinstance(head, InnerProductRecommender):
            return super().item_keys()
        return head.key(torch.from_numpy(self.vectors("item"))).numpy()

    @torch.no_grad()
    def program(self) -> Program:
        columns = [self.schema.entity("user"), self.schema.entity("item")]
        ids = [torch.arange(column.num_rows, device=self.device) for column in columns]
        tables = self._vectors.users(ids[0]).cpu(), self._vectors.items(ids[1]).cpu()
        module = PairScores(self.model.objective.head.cpu(), *tables)
        inputs = {"ids": torch.zeros(2, 2, dtype=torch.int64, device="cpu")}
        return Program(module, inputs, columns, "the score by which the model ranks")

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
        users, items: ``[num_rows, d]``.
    """

    def __init__(self, head: Recommender, users: torch.Tensor, items: torch.Tensor) -> None:
        super().__init__()
        self.head = head
        self.users, self.items = nn.Embedding.from_pretrained(users), nn.Embedding.from_pretrained(items)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return scores ``[rows]`` of ``ids [rows, 2]``: user and item."""
        return self.head(self.users(ids[:, 0]), self.items(ids[:, 1]).unsqueeze(1)).squeeze(1)
