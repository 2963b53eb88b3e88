"""Inference with a trained collaborative filtering model, from the vectors that evaluation ranks with."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.tasks.cf.model import CFModel
from cove_dist.tasks.cf.retrieval import TopKRetriever
from cove_dist.tasks.cf.vectors import Vectors, vectors_of
from cove_dist.tasks.inference import AT_ONCE, NO_CONTEXT, Context, Inference, Lists
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
    def vectors(self, entity: Entity) -> np.ndarray:
        look_up = self._vectors.users if entity == "user" else self._vectors.items
        ids = torch.arange(self.schema.entity(entity).num_seen, device=self.device)
        return torch.cat([look_up(part) for part in ids.split(AT_ONCE)]).cpu().numpy()

    def _rows(self, ids: np.ndarray) -> tuple[torch.Tensor, ...]:
        return torch.from_numpy(ids.astype(np.int64)).to(self.device).split(AT_ONCE)
