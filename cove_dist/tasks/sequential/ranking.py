"""Ranking of all items, or of those in the likeliest category, by the hidden states of a sequential model.

Shapes: ``n`` hidden states, ``K`` ranked items per state, ``V`` items that may be ranked, ``C`` items of a category,
``d`` embedding dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F

from cove_dist.evaluation.checks import FiniteScores
from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.search import TopItems, tie_order, top_scores
from cove_dist.models.layers.two_stage import TwoStageClassifier, rows_by_category

_WORKSPACE = 1 << 23  # maximum number of scores in memory

# Hidden states, items in tie order, and scores [states, items], -inf for excluded items.
Scored = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All items, on every rank.

    Items of equal score, and categories of equal probability, are listed in a fixed pseudo-random order, independent of
    ids, ranks and batches: a constant model performs like one random order.

    Attributes:
        fed: Input vectors of the model ``[V + 1, d]``; the last row is the out-of-vocabulary row.
        scored: Vectors that hidden states are scored against ``[V, d]``.
        categories: Categories int64 ``[V]`` with ``two_stage`` (only the likeliest category is ranked), else None.
        bias: Bias added to scores ``[V]``, or None.
        finite: Check for non-finite scores; call its `compute` before using any ranking.
    """

    fed: torch.Tensor
    scored: torch.Tensor
    categories: torch.Tensor | None = None
    two_stage: TwoStageClassifier | None = None
    bias: torch.Tensor | None = None
    finite: FiniteScores = field(default_factory=FiniteScores)

    def __post_init__(self) -> None:
        self.finite.to(self.scored.device)

    def rank(self, hidden: torch.Tensor, depth: int, seen: torch.Tensor | None = None) -> torch.Tensor:
        """Rank items for each hidden state.

        Args:
            hidden: Hidden states ``[n, d]``.
            depth: Number of items per state, at most V.
            seen: Items to exclude, int64 ``[n, m]``; ids outside ``0 … V-1`` are ignored.

        Returns:
            Items int64 ``[n, depth]``, best first; -1 where no items are left (in the category).

        Raises:
            FloatingPointError: Scores are not finite (on a GPU: raised by ``finite.compute``).
        """
        return self.best(hidden, depth, seen)[1]

    def best(
        self, hidden: torch.Tensor, depth: int, seen: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rank items for each hidden state, as `rank`; return their scores ``[n, depth]`` as well, and the items.

        Scores of a two-stage model are comparable only within the likeliest category.
        """
        ranked = torch.full((len(hidden), depth), -1, device=hidden.device)
        best = hidden.new_full((len(hidden), depth), -torch.inf)
        for rows, items, scores in self._scores(hidden, seen):
            top, at = top_scores(scores, min(depth, len(items)))
            best[rows, : at.shape[1]] = top
            ranked[rows, : at.shape[1]] = items[at].where(top > -torch.inf, -1)
        return best, ranked

    def positions(
        self, hidden: torch.Tensor, targets: torch.Tensor, depth: int, seen: torch.Tensor | None = None
    ) -> Positions:
        """Find the position of one item for each hidden state, with all items that tie with it.

        Args:
            hidden: Hidden states ``[n, d]``.
            targets: Items int64 ``[n]``; ids from V on and those in ``seen`` are not ranked.
            depth: Largest position that matters.
            seen: As in `rank`.

        Returns:
            Positions of ``n`` lists with one target each.

        Raises:
            FloatingPointError: As in `rank`.
        """
        above, tied = torch.full_like(targets, depth), torch.ones_like(targets)
        for rows, items, scores in self._scores(hidden, seen):
            lists = torch.arange(len(scores), device=scores.device)
            column = self._columns(targets[rows], items)
            score = scores[lists, column].where(column >= 0, -torch.inf)
            found = TopItems.none(len(scores), depth, scores).with_chunk(scores, 0).positions(lists, score)
            above[rows], tied[rows] = found.above, found.tied
        return Positions(torch.arange(len(targets), device=targets.device), above, tied, len(targets), depth)

    def _scores(self, hidden: torch.Tensor, seen: torch.Tensor | None) -> Iterator[Scored]:
        for rows, items, vectors, bias in self._parts(hidden):
            scores = F.linear(hidden[rows], vectors, bias)
            self.finite.update(scores)
            if seen is not None:
                leave_out(scores, self._columns(seen[rows], items))
            yield rows, items, scores

    def _parts(
        self, hidden: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """Yield rows of ``hidden``, the items ranked for them, and the vectors and biases of these."""
        vectors, bias = self._shuffled
        if self.first_stage is None:
            rows = torch.arange(len(hidden), device=hidden.device)
            for part in rows.split(max(1, _WORKSPACE // len(self._order))):
                yield part, self._order, vectors, bias
            return
        categories = self.first_stage.categories[self._order]
        likeliest, probabilities = self.first_stage.likeliest(hidden)
        self.finite.update(probabilities)
        for category, rows in rows_by_category(likeliest):
            members = (categories == category).nonzero().squeeze(1)
            yield rows, self._order[members], vectors[members], None if bias is None else bias[members]

    def _columns(self, ids: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return the columns of ids in ``items [C]``, which are in tie order; -1 if absent."""
        known = (ids >= 0) & (ids < len(self._order))
        positions, sought = self._tie_positions[items], self._tie_positions[ids.where(known, 0)]
        columns = torch.searchsorted(positions, sought).clamp(max=len(items) - 1)
        return columns.where(known & (positions[columns] == sought), -1)

    @cached_property
    def _order(self) -> torch.Tensor:
        return tie_order(len(self.scored), self.scored.device)

    @cached_property
    def first_stage(self) -> FirstStage | None:
        """The choice of a category, for two-stage models."""
        if self.two_stage is None:
            return None
        if self.categories is None:
            raise ValueError("two_stage needs the categories of all items")
        return FirstStage(self.two_stage, self.categories)

    @cached_property
    def _tie_positions(self) -> torch.Tensor:
        """The position of each item in the tie order."""
        return torch.empty_like(self._order).index_copy(
            0, self._order, torch.arange(len(self._order), device=self._order.device)
        )

    @cached_property
    def _shuffled(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The vectors and biases in tie order."""
        return self.scored[self._order], None if self.bias is None else self.bias[self._order]


@dataclass(frozen=True, eq=False)
class FirstStage:
    """The first stage of a two-stage classifier: the category, among those that have items.

    Attributes:
        classifier: Classifier of categories.
        categories: Categories of all items, int64 ``[V]``.
    """

    classifier: TwoStageClassifier
    categories: torch.Tensor

    def likeliest(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the most probable category of each state, int64 ``[n]``, and the categories' log-probabilities."""
        probabilities = self.classifier.category_log_probabilities(hidden, self.categories)[:, self.filled]
        return self.filled[probabilities.argmax(dim=1)], probabilities

    @cached_property
    def filled(self) -> torch.Tensor:
        """The categories that have items, in tie order."""
        categories = self.categories.unique()
        return categories[tie_order(len(categories), categories.device)]


def leave_out(scores: torch.Tensor, columns: torch.Tensor) -> None:
    """Set ``scores [n, C]`` to -inf, in place, in some columns of each row.

    Args:
        scores: Scores, one row per state.
        columns: Columns int64 ``[n, m]``; -1 is ignored.
    """
    rows, which = (columns >= 0).nonzero().unbind(1)
    scores[rows, columns[rows, which]] = -torch.inf
