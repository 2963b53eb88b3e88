"""The names of a task's metrics, as its evaluators give them."""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.evaluation.classification import BinnedAUC, LogLoss
from cove_dist.evaluation.declarations import FULL_PREFIX, names_of
from cove_dist.evaluation.ranking import UserRanking
from cove_dist.evaluation.sequential import ListCompletion
from cove_dist.evaluation.top_k import Coverage, TopK

_CTR = (BinnedAUC, LogLoss, UserRanking)
_CF = {"sampled": ("", (TopK,)), "full": (FULL_PREFIX, (TopK, Coverage))}


def metric_names(
    task: str, ndcg_at: Sequence[int], hit_rate_at: Sequence[int], rankings: Sequence[str], longest: int | None = None
) -> list[str]:
    """Return the names of a task's metrics.

    Args:
        task: ``ctr``, ``cf`` or ``lists``.
        ndcg_at, hit_rate_at: the k.
        rankings: of collaborative filtering: ``sampled``, ``full``.
        longest: of lists: items of the longest target half; None where the data are not known: what any can have.
    """
    if task == "cf":
        kinds = [_CF[ranking] for ranking in rankings]
        return [prefix + name for prefix, kind in kinds for m in kind for name in names_of(m, ndcg_at, hit_rate_at)]
    if task == "sequential":
        any_data = names_of(ListCompletion, ndcg_at, hit_rate_at)
        return any_data if longest is None else ListCompletion.defined(ndcg_at, hit_rate_at, longest)
    return [name for metric in _CTR for name in names_of(metric, ndcg_at, hit_rate_at)]
