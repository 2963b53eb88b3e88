"""The best items of users through a FAISS index of inner products, for models whose score is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cove_dist.errors import ConfigError
from cove_dist.evaluation.search import merge
from cove_dist.models.cf.base import InnerProductRecommender
from cove_dist.tasks.cf_vectors import Vectors
from cove_dist.training.distributed import Runtime
from data_pipeline.history import History


class IndexedLists:
    """As `TopLists`, in one process: the index finds k items more than a user's history has, which are then left out.

    The index is flat, so the lists are exact. The arguments are those of `TopLists`.

    Raises:
        ConfigError: FAISS is not installed.
    """

    def __init__(
        self,
        head: InnerProductRecommender,
        vectors: Vectors,
        excluded: Sequence[History],
        reserved: int,
        k: int,
        runtime: Runtime,
    ) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ConfigError(
                "faiss = true: FAISS is not installed; pip install faiss-cpu, or set faiss=false"
            ) from error
        self._head, self._vectors, self._excluded = head, vectors, tuple(excluded)
        self._reserved, self._k, self._device = reserved, k, runtime.device
        _, items = vectors.item_block()
        keys = head.key(items).cpu().numpy()
        self._index = faiss.IndexFlatIP(keys.shape[1])
        self._index.add(keys)

    def __call__(self, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and items ``[B, k]`` of ``users [B]``, best first; -inf and -1 where fewer are left."""
        rows = torch.from_numpy(users).to(self._device).clamp(max=self._reserved)
        queries = self._head.query(self._vectors.users(rows)).cpu().numpy()
        longest = sum(int(np.diff(h.offsets)[users].max(initial=0)) for h in self._excluded)
        scores, items = self._index.search(queries, min(self._k + longest, self._index.ntotal))
        for history in self._excluded:
            had = history.contains(users, items)
            scores[had], items[had] = -np.inf, -1
        short = max(0, self._k - scores.shape[1])
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        items = np.pad(items, ((0, 0), (0, short)), constant_values=-1)
        return merge(torch.from_numpy(scores), torch.from_numpy(items), self._k)
