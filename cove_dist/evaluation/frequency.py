"""Separate metrics for rare and frequent ids, by how often a row's user or item occurs in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from cove_dist.evaluation.ctr import CTRMetrics

GROUPS = ("q1", "q2", "q3", "q4", "never")
_NEVER = len(GROUPS) - 1
_AT_ONCE = 1 << 18  # counts


@dataclass(frozen=True)
class FrequencyGroups:
    """The ids of an entity in five frequency groups.

    Let ``c_1 <= … <= c_n`` be the counts of the n ids that occur in training; the k-th quartile is the count
    ``c_⌈kn/4⌉``. ``q1`` are the ids with counts up to the first quartile, ``q2`` those above it and up to the second,
    ``q3`` up to the third, ``q4`` those above it, ``never`` those that do not occur. Equal counts stay together:
    the quartiles have equal sizes up to ties, and all except ``q1`` may be empty.

    Attributes:
        of_id: Index into `GROUPS` of each id, uint8 ``[n + 1]``; the last is for all ids from n on.
        statistics: For each group ``ids``, the number of ids; ``train_rows_min`` and ``train_rows_max``, the smallest
            and largest of their counts, nan for empty groups.
    """

    of_id: torch.Tensor
    statistics: tuple[dict[str, float], ...]

    @classmethod
    def from_counts(cls, counts: torch.Tensor, num_ids: int) -> FrequencyGroups:
        """Build the groups from counts, in little more memory than 1 byte per id.

        Args:
            counts: Occurrences of ids 0, 1, … in training, int64 ``[n]``.
            num_ids: Number of all ids; those from n on do not occur.
        """
        values, ids = _distinct(counts)
        seen = int(ids.sum())
        places = torch.tensor([math.ceil(k * seen / 4) for k in (1, 2, 3)], device=counts.device)
        quartiles = values[torch.searchsorted(ids.cumsum(0), places)] if seen else counts.new_zeros(3)
        of_id = counts.new_full((len(counts) + 1,), _NEVER, dtype=torch.uint8)
        for part, groups in zip(counts.split(_AT_ONCE), of_id[:-1].split(_AT_ONCE), strict=True):
            groups.copy_(torch.where(part > 0, torch.searchsorted(quartiles, part), _NEVER))
        ends = torch.searchsorted(values, quartiles, right=True)
        parts = [*zip(values.tensor_split(ends), ids.tensor_split(ends), strict=True)]
        never = counts.new_zeros(1), counts.new_tensor([num_ids - seen])
        return cls(of_id, tuple(_statistics(*part) for part in (*parts, never)))

    def of(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the indices into `GROUPS`, uint8 ``[B]``, of ids int64 ``[B]`` (unseen ids distinct or not)."""
        return self.of_id[ids.clamp(max=len(self.of_id) - 1)]

    def to(self, device: torch.device | str) -> FrequencyGroups:
        return replace(self, of_id=self.of_id.to(device))


Groups = Mapping[str, FrequencyGroups]  # by entity; empty: no separate metrics


def _distinct(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct counts above 0, in increasing order, and how many ids have each of them."""
    values, ids = counts.new_empty(0), counts.new_empty(0)
    for part in counts.split(_AT_ONCE):
        found, of_part = part[part > 0].unique(return_counts=True)
        values, index = torch.cat([values, found]).unique(return_inverse=True)
        ids = counts.new_zeros(len(values)).index_add_(0, index, torch.cat([ids, of_part]))
    return values, ids


def _statistics(counts: torch.Tensor, ids: torch.Tensor) -> dict[str, float]:
    """Summarize a group by the distinct counts of its ids, in increasing order, and the number of ids of each."""
    number = int(ids.sum())
    least, greatest = (int(counts[0]), int(counts[-1])) if number else (math.nan, math.nan)
    return {"ids": number, "train_rows_min": least, "train_rows_max": greatest}


class FrequencyMetrics:
    """`CTRMetrics` for each group of each entity, named as in ``auc/item_q1``.

    A group has the rows whose user, or item, is in it, and every metric is computed from these rows only:

    - By user, GAUC, MRR, NDCG and HR rank all test items of the group's users.
    - By item, they rank a user's test items *of the group* among themselves.

    If rows are grouped by request, each metric is over the requests of these rows.

    Rare users and rare items have short lists, and a list of only positives is always ranked correctly: use NDCG and HR
    to compare models within a group, not groups with each other.

    Args:
        groups: Groups by entity, ``user`` or ``item``; empty: no metrics.
        build: Function that builds the metrics of one group.
    """

    def __init__(self, groups: Groups, build: Callable[[], CTRMetrics] = CTRMetrics) -> None:
        self._groups = dict(groups)
        self._metrics = {entity: [build() for _ in GROUPS] for entity in groups}

    def to(self, device: torch.device | str) -> FrequencyMetrics:
        """Move the states and the groups to the device of the batches."""
        for entity, metrics in self._metrics.items():
            self._groups[entity] = self._groups[entity].to(device)
            for metric in metrics:
                metric.to(device)
        return self

    def update(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        users: torch.Tensor,
        items: torch.Tensor,
        requests: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> None:
        """Add a batch as in `CTRMetrics`; ``items``: int64 ``[B]``."""
        ids = {"user": users, "item": items}
        for entity, metrics in self._metrics.items():
            group = self._groups[entity].of(ids[entity])
            for place, metric in enumerate(metrics):
                rows = group == place
                optional = [None if each is None else each[rows] for each in (requests, weights)]
                metric.update(logits[rows], labels[rows], users[rows], *optional)

    def compute(self) -> dict[str, float]:
        """Return ``<metric>/<entity>_<group>`` over all ranks, the same on each. Collective.

        The values are those of `FrequencyGroups` and `CTRMetrics`. Undefined metrics are nan.
        """
        values = {}
        for entity, metrics in self._metrics.items():
            for group, of_ids, metric in zip(GROUPS, self._groups[entity].statistics, metrics, strict=True):
                for name, value in (of_ids | metric.compute()).items():
                    values[f"{name}/{entity}_{group}"] = value
        return values


def is_grouped(name: str) -> bool:
    """Return whether a name is that of a single group's metric."""
    return name.endswith(tuple(f"_{group}" for group in GROUPS)) and "/" in name


def by_entity(values: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Arrange the output of `FrequencyMetrics` for tables: entity -> metric -> values in the order of `GROUPS`."""
    tables: dict[str, dict[str, list[Any]]] = {}
    for name in filter(is_grouped, values):
        metric, group = name.split("/")
        entity, _ = group.rsplit("_", 1)
        table = tables.setdefault(entity, {})
        table.setdefault(metric, [values[f"{metric}/{entity}_{each}"] for each in GROUPS])
    return tables
