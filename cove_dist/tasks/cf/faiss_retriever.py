"""Top-k retrieval with a FAISS index, for models whose score is an inner product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation.checks import FiniteScores
from cove_dist.evaluation.search import merge
from cove_dist.models.cf.base import InnerProductRecommender
from cove_dist.tasks.cf.vectors import Vectors
from data_pipeline.history import History


class FaissRetriever:
    """Finds the top k items with FAISS, in one process; a drop-in for `TopKRetriever`.

    The index is flat, so the lists are exact. It is searched for k items plus the number of excluded ones. If scores
    tie at the end of the result, it is searched again for more: of equal scores, lower items come first. The
    arguments are those of `TopKRetriever`.

    Attributes:
        finite: Check for non-finite scores, by an upper bound: the index does not return non-finite ones.

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
        context: DistributedContext,
    ) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ConfigError(
                "faiss = true: FAISS is not installed; pip install faiss-cpu, or set faiss=false"
            ) from error
        self._head, self._vectors, self._excluded = head, vectors, tuple(excluded)
        self._reserved, self._k, self._device = reserved, k, context.device
        self.finite = FiniteScores().to(context.device)
        _, items = vectors.item_block()
        keys = head.key(items)
        self._longest_key = keys.double().norm(dim=1).amax()
        self._index = faiss.IndexFlatIP(keys.shape[1])
        self._index.add(keys.cpu().numpy())

    def __call__(self, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and items ``[B, k]`` of ``users [B]``, on the CPU; -inf and -1 where fewer are left."""
        rows = torch.from_numpy(users).to(self._device).clamp(max=self._reserved)
        of_users = self._vectors.users(rows)
        vectors, offset = self._head.query(of_users), self._head.offset(of_users)
        self.finite.update((vectors.double().norm(dim=1) * self._longest_key).float())  # Cauchy-Schwarz
        queries = vectors.cpu().numpy()
        scores = torch.full((len(users), self._k), -torch.inf, device="cpu")  # where FAISS searches
        items = torch.full((len(users), self._k), -1, device="cpu")
        longest = sum(int(np.diff(history.offsets)[users].max(initial=0)) for history in self._excluded)
        found, unfinished = self._k + longest, np.arange(len(users))
        while len(unfinished):
            found = min(found, self._index.ntotal)
            best, ids, last_found = self._search(queries[unfinished], users[unfinished], found)
            scores[unfinished], items[unfinished] = best, ids
            more_ties = (best[:, -1] == last_found).numpy() & (found < self._index.ntotal)
            found, unfinished = 2 * found, unfinished[more_ties]
        return scores if offset is None else scores + offset.cpu().unsqueeze(1), items

    def _search(
        self, queries: np.ndarray, users: np.ndarray, found: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the best k of the ``found`` best, and the lowest score found ``[B]``."""
        scores, items = self._index.search(queries, found)
        last_found = torch.from_numpy(scores[:, -1].copy())
        for history in self._excluded:
            excluded = history.contains(users, items)
            scores[excluded], items[excluded] = -np.inf, -1
        short = max(0, self._k - scores.shape[1])
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        items = np.pad(items, ((0, 0), (0, short)), constant_values=-1)
        return *merge(torch.from_numpy(scores), torch.from_numpy(items), self._k), last_found
