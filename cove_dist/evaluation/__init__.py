"""Metrics whose states are sums or bins: exact for any number of ranks, in memory that does not grow with the data."""

from cove_dist.evaluation.classification import AUC, BinnedAUC, LogLoss
from cove_dist.evaluation.ctr import CTRMetrics
from cove_dist.evaluation.frequency import FrequencyGroups, FrequencyMetrics, Groups
from cove_dist.evaluation.ranking import UserRanking
from cove_dist.evaluation.sequential import ListCompletion
from cove_dist.evaluation.top_k import Coverage, TopK
from cove_dist.evaluation.whole_groups import WholeGroups

__all__ = [
    "AUC",
    "BinnedAUC",
    "CTRMetrics",
    "Coverage",
    "FrequencyGroups",
    "FrequencyMetrics",
    "Groups",
    "ListCompletion",
    "LogLoss",
    "TopK",
    "UserRanking",
    "WholeGroups",
]
