"""Top-k retrieval over item vectors partitioned among ranks.

Shapes: ``B`` users of this rank, ``W`` ranks, ``k`` the length of a list, ``d`` width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from cove_dist.distributed import DistributedContext, world
from cove_dist.evaluation.checks import FiniteScores
from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.search import TopItems, best_items, mask_pairs, merge, merge_lists, pick_pairs, scored_chunks
from cove_dist.models.cf.base import InnerProductRecommender, Recommender
from cove_dist.tasks.base import RetrieverSettings
from cove_dist.tasks.cf.faiss_retriever import FaissRetriever
from cove_dist.tasks.cf.model import CFTaskModel
from cove_dist.tasks.cf.vectors import Vectors, vectors_of
from data_pipeline.history import History
from data_pipeline.schema import Schema


class TopKRetriever:
    """Scores users against all items and keeps the best k; of equal scores, lower items come first.

    A step takes the users of all ranks to every rank, which scores them against its own block, a chunk at a time; the
    lists of k go back to the user's rank and are merged there. Memory beyond the block: ``W B`` user vectors, one chunk
    of their scores, ``W B k`` list entries.

    Args:
        head: The model.
        vectors: Vectors of the model.
        excluded: Interaction histories whose items are not listed.
        reserved: Table row of unseen users (the out-of-vocabulary row).
        k: Length of a list.
        context: Context of this rank.

    Attributes:
        finite: Check for non-finite scores; call its `compute` before using the lists.
    """

    def __init__(
        self,
        head: Recommender,
        vectors: Vectors,
        excluded: Sequence[History],
        reserved: int,
        k: int,
        context: DistributedContext,
    ) -> None:
        self._head, self._vectors, self._excluded = head, vectors, tuple(excluded)
        self._reserved, self._k, self._context = reserved, k, context
        self._first, self._items = vectors.item_block()
        self.finite = FiniteScores().to(context.device)

    def __call__(self, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and items ``[B, k]`` of this rank's ``users [B]`` (ids as stored), best first. Collective.

        Where fewer than k items are left, the rest has score -inf and item -1.
        """
        step = _Step(users, self._vectors, self._reserved, self._context)
        excluded = step.pairs(self._excluded)
        found = best_items(self._scores_of(step), self._items, self._first, len(step.queries), self._k, excluded)
        scores, items = (torch.cat(step.to_owners(each), dim=1) for each in found)
        return merge(scores, items, self._k)

    def rank(self, users: np.ndarray, relevant: History) -> tuple[torch.Tensor, Positions]:
        """Rank all items for this rank's users. Collective.

        Args:
            users: int64 ``[B]``, ids as stored.
            relevant: Items of each user whose positions are computed.

        Returns:
            The items ``[B, k]``, best first, as from a call; and the positions of the relevant items. Excluded and
            unseen items are not ranked.
        """
        step = _Step(users, self._vectors, self._reserved, self._context)
        excluded, pairs = step.pairs(self._excluded), step.pairs([relevant])
        best = TopItems.none(len(step.queries), self._k, step.queries)
        scores_of_relevant = step.queries.new_full((len(pairs[0]),), -torch.inf)
        for start, scores in scored_chunks(self._scores_of(step), self._items, self._first, len(step.queries)):
            mask_pairs(scores, start, excluded)
            pick_pairs(scores, start, pairs, scores_of_relevant)
            best = best.with_chunk(scores, start)
        own = merge_lists([TopItems(*part) for part in zip(*map(step.to_owners, best), strict=True)], self._k)
        world().max(scores_of_relevant)  # from the rank that holds the item
        rows, theirs = step.own_rows(pairs[0])
        return own.ids, own.positions(rows, scores_of_relevant[theirs])

    def _scores_of(self, step: _Step) -> Callable[[torch.Tensor], torch.Tensor]:
        def score(chunk: torch.Tensor) -> torch.Tensor:
            scores = self._head.score_all(step.queries, chunk)
            self.finite.update(scores)
            return scores

        return score


class _Step:
    """The users of all ranks, padded to the longest rank.

    Attributes:
        queries: Vectors of the users ``[W B', d]``, where B' is the largest B.
    """

    def __init__(self, users: np.ndarray, vectors: Vectors, reserved: int, context: DistributedContext) -> None:
        own = torch.from_numpy(users).to(context.device)
        self._users = world().gather_padded(own, -1)
        self._present = (self._users >= 0).nonzero().squeeze(1)
        self.queries = world().gather_padded(vectors.users(own.clamp(max=reserved)), 0.0)
        self._count, self._context = len(users), context

    def pairs(self, histories: Sequence[History]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distinct items of each user in each history: int64 ``[m]`` twice, row of `queries` and item."""
        users, rows = self._users[self._present].cpu().numpy(), self._present.cpu().numpy()
        found = [np.empty((2, 0), np.int64)]
        for history in histories:
            pair = np.stack(history.of(users))
            again = (np.diff(pair, prepend=-1) == 0).all(axis=0)
            found.append(pair[:, ~again])
        indices, items = torch.from_numpy(np.concatenate(found, axis=1)).to(self._users.device)
        return torch.from_numpy(rows).to(self._users.device)[indices], items

    def to_owners(self, lists: torch.Tensor) -> list[torch.Tensor]:
        """Send lists ``[W B', …]`` to their users' ranks; return this rank's, ``[B, …]`` from each rank. Collective."""
        return list(world().exchange(lists).unflatten(0, (self._context.world_size, -1))[:, : self._count])

    def own_rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the users ``0 … B-1`` of this rank among rows of `queries` ``[m]``, and their mask, bool ``[m]``."""
        longest = len(self._users) // self._context.world_size
        own = rows // longest == self._context.rank
        return rows[own] % longest, own


def build_retriever(
    model: CFTaskModel, schema: Schema, context: DistributedContext, settings: RetrieverSettings
) -> TopKRetriever | FaissRetriever:
    """Build the retriever of a model's best items; see `cove_dist.tasks.task.Task.build_retriever`. Collective."""
    head, vectors = model.objective.head, vectors_of(model, schema, context.device)
    reserved = schema.entity("user").num_seen
    if not settings.faiss:
        return TopKRetriever(head, vectors, settings.excluded, reserved, settings.k, context)
    assert isinstance(head, InnerProductRecommender)  # its `ranks_by_inner_product` was checked
    return FaissRetriever(head, vectors, settings.excluded, reserved, settings.k, context)
