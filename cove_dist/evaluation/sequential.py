"""Metrics of continued lists: as the paper's baselines compute them, and the standard ones. No loop over lists.

Shapes: ``B`` lists, ``S`` target positions, ``K`` ranked items of a position, ``C`` candidates of a list.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torchmetrics import Metric

from cove_dist.evaluation.declarations import HIT_RATE, NDCG, RECALL, Family, declares
from cove_dist.evaluation.positions import Positions, cumulative_discounts

logger = logging.getLogger(__name__)

NOTHING = -1  # where no item stands


def merge_depth_first(ranked: torch.Tensor, count: int) -> torch.Tensor:
    """One candidate list from the ranked items of every position: every position's best, then every second best, ….

    Items that stand there already are skipped (as in Q. Liu et al., "FANS", WWW 2023).

    Args:
        ranked: int64 ``[B, S, K]``, `NOTHING` where a list has no such position.
        count: candidates at most.

    Returns:
        int64 ``[B, count]``, `NOTHING` behind the last candidate.
    """
    flat = ranked.transpose(1, 2).flatten(1)  # by depth, then by position
    kept = first_occurrences(flat, torch.iinfo(torch.int64).max)
    place = torch.where(kept, kept.cumsum(dim=1) - 1, count).clamp(max=count)  # what is left out goes behind the rest
    candidates = flat.new_full((len(flat), count + 1), NOTHING)
    return candidates.scatter_(1, place, flat)[:, :count]


def first_occurrences(items: torch.Tensor, unseen: int) -> torch.Tensor:
    """Tell which items are the first of their kind in their row: bool ``[B, S]``, false where there is `NOTHING`.

    Args:
        items: int64 ``[B, S]``, `NOTHING` where there is none.
        unseen: the first id of unseen items; each of them counts as a different item.
    """
    ordered, order = torch.sort(items, dim=1, stable=True)
    first = ordered != NOTHING
    first[:, 1:] &= (ordered[:, 1:] != ordered[:, :-1]) | (ordered[:, 1:] >= unseen)
    return torch.zeros_like(first).scatter_(1, order, first)


PAPER_NDCG = Family("paper_ndcg", "NDCG (paper)", "ndcg_at")
PAPER_HIT_RATE = Family("paper_hr", "HR (paper)", "hit_rate_at")


@declares(PAPER_NDCG, PAPER_HIT_RATE, NDCG, RECALL, HIT_RATE)
class ListCompletion(Metric):
    """Two families over the same candidates of every list.

    - ``paper_hr@k``: 1 if any of the first k candidates is in the target half; ``paper_ndcg@k``: the ideal DCG is that
      of the whole target half, repeats included, not of k items. Both are means over lists of at least k target items.
    - ``recall@k``: of the distinct target items, the share among the first k candidates; ``ndcg@k``: the ideal DCG is
      that of the first k of them (Järvelin and Kekäläinen, 2002). Both are means over all lists. Target items that
      training never saw count each as one that is missed.

    Metrics that no list of the data can have are left out: the paper's at a k that no target half reaches. Where every
    list has one target item, ``ndcg@k`` and ``hr@k`` are all there is: recall is then HR, and is called so.

    Gains are binary, the discount is ``1 / log2(rank + 1)``.

    Args:
        ndcg_at: the k of NDCG@k.
        hits_at: the k of HR@k and of recall@k.
        unseen: from this id on, items are ones that training never saw.
        longest: items of the longest target half of the data; None where it is not known.
    """

    full_state_update = False
    higher_is_better = True
    totals: torch.Tensor
    counts: torch.Tensor
    lists: torch.Tensor

    def __init__(self, ndcg_at: Sequence[int], hits_at: Sequence[int], unseen: int, longest: int | None = None) -> None:
        super().__init__(compute_with_cache=False)
        if any(k < 1 for k in (*ndcg_at, *hits_at)):
            raise ValueError(f"ndcg_at = {list(ndcg_at)}, hits_at = {list(hits_at)}: must be at least 1")
        self.ndcg_at, self.hits_at, self.unseen = tuple(ndcg_at), tuple(hits_at), unseen
        self.depth = max((*ndcg_at, *hits_at))
        self.names = self.defined(ndcg_at, hits_at, longest)
        self.add_state("totals", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(len(self.names), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("lists", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @staticmethod
    def defined(ndcg_at: Sequence[int], hits_at: Sequence[int], longest: int | None) -> list[str]:
        """Return the names of the metrics that lists of up to ``longest`` target items can have."""
        if longest == 1:
            return NDCG.names(ndcg_at, hits_at) + HIT_RATE.names(ndcg_at, hits_at)
        reached = [[k for k in ks if longest is None or k <= longest] for ks in (ndcg_at, hits_at)]
        paper = PAPER_NDCG.names(*reached) + PAPER_HIT_RATE.names(*reached)
        return paper + NDCG.names(ndcg_at, hits_at) + RECALL.names(ndcg_at, hits_at)

    def update(self, ranked: torch.Tensor | Positions, targets: torch.Tensor) -> None:
        """Add lists, which may be none.

        Args:
            ranked: the candidates of each list, int64 ``[B, C]``, best first and distinct, C at least `depth`,
                `NOTHING` behind the last; or the positions of its target items up to `depth`, each item once, then
                ties have their expected value over all their orders.
            targets: int64 ``[B, S]``, `NOTHING` behind the last.

        Raises:
            ValueError: shapes differ, or a list has no target.
        """
        lists = ranked.count if isinstance(ranked, Positions) else len(ranked)
        if targets.dim() != 2 or len(targets) != lists:
            raise ValueError(f"{lists} ranked lists, targets {list(targets.shape)}: must be [B, S] of as many")
        if (targets == NOTHING).all(dim=1).any():
            raise ValueError("targets: each list needs at least one; leave the others out")
        positions = ranked if isinstance(ranked, Positions) else self._positions(ranked, targets)
        lengths, distinct = (targets != NOTHING).sum(dim=1), first_occurrences(targets, self.unseen).sum(dim=1)
        ideal = cumulative_discounts(max(self.depth, targets.shape[1]), targets.device)
        everyone = torch.ones_like(lengths, dtype=torch.bool)
        values = {f"paper_ndcg@{k}": (positions.dcg(k) / ideal[lengths], lengths >= k) for k in self.ndcg_at}
        values |= {f"paper_hr@{k}": (positions.hit(k), lengths >= k) for k in self.hits_at}
        values |= {f"ndcg@{k}": (positions.dcg(k) / ideal[distinct.clamp(max=k)], everyone) for k in self.ndcg_at}
        values |= {f"recall@{k}": (positions.found(k) / distinct, everyone) for k in self.hits_at}
        values |= {f"hr@{k}": (positions.hit(k), everyone) for k in self.hits_at}
        self.totals += torch.stack([values[name][0][values[name][1]].sum() for name in self.names])
        self.counts += torch.stack([values[name][1].sum() for name in self.names])
        self.lists += len(lengths)

    def _positions(self, candidates: torch.Tensor, targets: torch.Tensor) -> Positions:
        if candidates.dim() != 2 or candidates.shape[1] < self.depth:
            raise ValueError(f"candidates {list(candidates.shape)}: must be [B, C], C at least {self.depth}")
        candidates = candidates[:, : self.depth]
        found = (candidates[:, :, None] == targets[:, None, :]).any(dim=2) & (candidates != NOTHING)
        return Positions.of_mask(found, self.depth)

    def compute(self) -> dict[str, torch.Tensor]:
        """Float64 scalars by name, nan where no list counts, and ``lists`` (int64), how many there were."""
        if (self.counts == 0).any():
            undefined = [name for name, count in zip(self.names, self.counts.tolist(), strict=True) if not count]
            logger.warning("%s: undefined, no list has as many targets", ", ".join(undefined))
        means = (self.totals / self.counts).unbind()
        return dict(zip(self.names, means, strict=True)) | {"lists": self.lists.clone()}
