"""Metrics of list completion: those of the paper's baselines, and the standard ones; vectorized over lists.

Shapes: ``B`` lists, ``S`` target positions, ``K`` ranked items per position, ``C`` candidates per list.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import torch
from torchmetrics import Metric

from cove_dist.evaluation.declarations import HIT_RATE, NDCG, RECALL, Family, declares
from cove_dist.evaluation.own import ListMetric
from cove_dist.evaluation.positions import Positions, cumulative_discounts

logger = logging.getLogger(__name__)

NOTHING = -1  # padding: no item


def merge_depth_first(ranked: torch.Tensor, count: int) -> torch.Tensor:
    """Merge the ranked items of all positions into one candidate list: all best items, then all second best, ….

    Duplicates are skipped (as in Q. Liu et al., "FANS", WWW 2023).

    Args:
        ranked: Ranked items int64 ``[B, S, K]``, `NOTHING` at positions that a list does not have.
        count: Maximum number of candidates.

    Returns:
        Candidates int64 ``[B, count]``, padded with `NOTHING`.
    """
    flat = ranked.transpose(1, 2).flatten(1)  # by depth, then by position
    kept = first_occurrences(flat, torch.iinfo(torch.int64).max)
    slot = torch.where(kept, kept.cumsum(dim=1) - 1, count).clamp(max=count)  # skipped items go to the end
    candidates = flat.new_full((len(flat), count + 1), NOTHING)
    return candidates.scatter_(1, slot, flat)[:, :count]


def first_occurrences(items: torch.Tensor, unseen: int) -> torch.Tensor:
    """Return which items occur for the first time in their row: bool ``[B, S]``, false at `NOTHING`.

    Args:
        items: Items int64 ``[B, S]``, padded with `NOTHING`.
        unseen: First id of unseen items; each of these counts as a different item.
    """
    ordered, order = torch.sort(items, dim=1, stable=True)
    first = ordered != NOTHING
    first[:, 1:] &= (ordered[:, 1:] != ordered[:, :-1]) | (ordered[:, 1:] >= unseen)
    return torch.zeros_like(first).scatter_(1, order, first)


PAPER_NDCG = Family("paper_ndcg", "NDCG (paper)", "ndcg_at")
PAPER_HIT_RATE = Family("paper_hr", "HR (paper)", "hit_rate_at")


@declares(PAPER_NDCG, PAPER_HIT_RATE, NDCG, RECALL, HIT_RATE)
class ListCompletion(Metric):
    """Two families of metrics over the candidates of every list.

    - ``paper_hr@k``: 1 if any of the first k candidates is in the target half; ``paper_ndcg@k``: the ideal DCG is that
      of the whole target half, repeats included, not of k items. Both are means over lists of at least k target items.
    - ``recall@k``: of the distinct target items, the share among the first k candidates; ``ndcg@k``: the ideal DCG is
      that of the first k of them (Järvelin and Kekäläinen, 2002). Both are means over all lists. Unseen target
      items each count as a miss.

    Metrics that are undefined for the data are omitted: the paper's metrics at a k larger than every target half. If
    every list has one target item, only ``ndcg@k`` and ``hr@k`` remain, as recall equals HR.

    Gains are binary, the discount is ``1 / log2(rank + 1)``.

    Args:
        ndcg_at: Cutoffs k of NDCG@k.
        hits_at: Cutoffs k of HR@k and recall@k.
        unseen: First id of unseen items.
        longest: Number of items of the longest target half of the data; None: unknown.
        own: Further metrics of the positions of the distinct target items.
    """

    full_state_update = False
    higher_is_better = True
    totals: torch.Tensor
    counts: torch.Tensor
    lists: torch.Tensor

    def __init__(
        self,
        ndcg_at: Sequence[int],
        hits_at: Sequence[int],
        unseen: int,
        longest: int | None = None,
        own: Sequence[ListMetric] = (),
    ) -> None:
        super().__init__(compute_with_cache=False)
        if any(k < 1 for k in (*ndcg_at, *hits_at)):
            raise ValueError(f"ndcg_at = {list(ndcg_at)}, hits_at = {list(hits_at)}: must be at least 1")
        self.ndcg_at, self.hits_at, self.unseen = tuple(ndcg_at), tuple(hits_at), unseen
        self.depth = max((*ndcg_at, *hits_at))
        self.names = self.defined(ndcg_at, hits_at, longest)
        self.own = cast("Sequence[ListMetric]", torch.nn.ModuleList(own))  # moves with this metric
        self.add_state("totals", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(len(self.names), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("lists", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def reset(self) -> None:
        """Reset all metrics."""
        super().reset()
        for metric in self.own:
            metric.reset()

    @staticmethod
    def defined(ndcg_at: Sequence[int], hits_at: Sequence[int], longest: int | None) -> list[str]:
        """Return the names of the metrics that are defined for lists of up to ``longest`` target items."""
        if longest == 1:
            return NDCG.names(ndcg_at, hits_at) + HIT_RATE.names(ndcg_at, hits_at)
        reached = [[k for k in ks if longest is None or k <= longest] for ks in (ndcg_at, hits_at)]
        paper = PAPER_NDCG.names(*reached) + PAPER_HIT_RATE.names(*reached)
        return paper + NDCG.names(ndcg_at, hits_at) + RECALL.names(ndcg_at, hits_at)

    def update(self, ranked: torch.Tensor | Positions, targets: torch.Tensor) -> None:
        """Add a batch of lists, which may be empty.

        Args:
            ranked: Candidates of each list, int64 ``[B, C]``, distinct, best first, C at least `depth`, padded with
                `NOTHING`; or the positions of its distinct target items up to `depth`, where ties count with their
                expected value over all orders.
            targets: Target items int64 ``[B, S]``, padded with `NOTHING`.

        Raises:
            ValueError: Shapes differ, or a list has no target.
        """
        lists = ranked.count if isinstance(ranked, Positions) else len(ranked)
        if targets.dim() != 2 or len(targets) != lists:
            raise ValueError(f"{lists} ranked lists, targets {list(targets.shape)}: must be [B, S] with the same B")
        if (targets == NOTHING).all(dim=1).any():
            raise ValueError("targets: each list needs at least one; remove lists without targets")
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
        for metric in self.own:
            metric.update(positions, distinct)

    def _positions(self, candidates: torch.Tensor, targets: torch.Tensor) -> Positions:
        if candidates.dim() != 2 or candidates.shape[1] < self.depth:
            raise ValueError(f"candidates {list(candidates.shape)}: must be [B, C], C at least {self.depth}")
        candidates = candidates[:, : self.depth]
        found = (candidates[:, :, None] == targets[:, None, :]).any(dim=2) & (candidates != NOTHING)
        return Positions.of_mask(found, self.depth)

    def compute(self) -> dict[str, torch.Tensor]:
        """Return float64 scalars by name, nan if no list is eligible, and ``lists`` (int64), the number of lists."""
        if (self.counts == 0).any():
            undefined = [name for name, count in zip(self.names, self.counts.tolist(), strict=True) if not count]
            logger.warning("Skipping %s: no list has that many targets", ", ".join(undefined))
        means = dict(zip(self.names, (self.totals / self.counts).unbind(), strict=True))
        for metric in self.own:
            means |= metric.compute()
        return means | {"lists": self.lists.clone()}
