from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cove_dist.evaluation import FrequencyGroups, FrequencyMetrics, frequency
from cove_dist.evaluation.ctr import CTRMetrics
from cove_dist.evaluation.frequency import GROUPS, by_entity, is_grouped
from tests.properties import few
from tests.unit.evaluation.samples import cut, samples
from tests.unit.evaluation.test_ranking import KS, one_user_at_a_time
from tests.unit.evaluation.ties import auc_of_pairs


def group_of(count: int, counts: list[int]) -> str:
    """The definition, for one id."""
    if count == 0:
        return "never"
    quartiles = np.quantile([c for c in counts if c], [0.25, 0.5, 0.75], method="inverted_cdf")
    return GROUPS[sum(count > quartile for quartile in quartiles)]


@given(st.lists(st.integers(0, 6) | st.integers(0, 1000), max_size=30), st.integers(0, 5))
def test_groups_equal_the_definition(counts: list[int], unseen: int) -> None:
    groups = FrequencyGroups.from_counts(torch.tensor(counts, dtype=torch.int64), len(counts) + unseen)
    expected = [group_of(count, counts) for count in [*counts, *[0] * unseen]]
    found = [GROUPS[place] for place in groups.of(torch.arange(len(expected)))]
    assert found == expected
    for place, name in enumerate(GROUPS):
        members = [count for count, group in zip([*counts, *[0] * unseen], expected, strict=True) if group == name]
        bounds = {"train_rows_min": min(members, default=math.nan), "train_rows_max": max(members, default=math.nan)}
        assert groups.statistics[place] == pytest.approx({"ids": len(members), **bounds}, nan_ok=True)


def test_quartiles_of_distinct_counts_are_of_equal_size() -> None:
    groups = FrequencyGroups.from_counts(torch.tensor([70, 10, 40, 20, 80, 30, 60, 50]), 10)
    assert groups.of(torch.arange(10)).tolist() == [3, 0, 1, 0, 3, 1, 2, 2, 4, 4]
    assert [tuple(figures.values()) for figures in groups.statistics] == [
        *((2, 10, 20), (2, 30, 40), (2, 50, 60), (2, 70, 80), (2, 0, 0))
    ]


def test_equal_counts_stay_together() -> None:
    groups = FrequencyGroups.from_counts(torch.tensor([1, 2, 1, 1, 2, 1, 1, 9]), 8)
    assert groups.of(torch.arange(8)).tolist() == [0, 2, 0, 0, 2, 0, 0, 3]  # the second quartile is 1 as well
    assert [figures["ids"] for figures in groups.statistics] == [5, 0, 2, 1, 0]


class Largest(TorchDispatchMode):
    """Records the bytes of the largest result of any operation."""

    bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.bytes = max([self.bytes, *(each.nbytes for each in tree_leaves(result) if isinstance(each, torch.Tensor))])
        return result


def test_groups_need_one_byte_per_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequency, "_AT_ONCE", 50)
    counts = torch.arange(10_000) % 7
    with Largest() as largest:
        groups = FrequencyGroups.from_counts(counts, len(counts))
    assert largest.bytes == len(counts) + 1 == groups.of_id.nbytes
    assert [group_of(count, counts.tolist()) for count in range(7)] == [GROUPS[group] for group in groups.of_id[:7]]


@st.composite
def grouped_samples(draw: st.DrawFn) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Logits, labels, users and items of rows, and the counts of users and items that were seen; the last were not."""
    logits, labels, users = draw(samples())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    items = torch.randint(draw(st.integers(1, 20)), users.shape, generator=generator)
    seen = {"user": int(users.max()) - 2, "item": int(items.max())}
    counts = {entity: torch.randint(0, 9, (n,), generator=generator) for entity, n in seen.items()}
    return (logits, labels, users, items), counts


@given(grouped_samples(), st.lists(st.integers(0, 100), max_size=6))
@few
def test_metrics_equal_those_of_only_the_groups_rows(sample: tuple, points: list[int]) -> None:
    (logits, labels, users, items), counts = sample
    ids = {"user": users, "item": items}
    groups = {e: FrequencyGroups.from_counts(counts[e], int(ids[e].max()) + 1) for e in counts}
    metrics = FrequencyMetrics(groups, partial(CTRMetrics, ndcg_at=KS, hit_rate_at=KS))
    for part in cut(len(logits), points):
        metrics.update(logits[part], labels[part], users[part], items[part])
    result = metrics.compute()
    assert sum(result[f"samples/user_{group}"] for group in GROUPS) == len(logits)
    for entity, seen in counts.items():
        of_row = [group_of(([*seen.tolist(), *[0] * 99])[i], seen.tolist()) for i in ids[entity].tolist()]
        for group in GROUPS:
            rows = torch.tensor([each == group for each in of_row])
            expected = plain(logits[rows], labels[rows], users[rows])
            found = {name: result[f"{name}/{entity}_{group}"] for name in expected}
            assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def plain(logits: torch.Tensor, labels: torch.Tensor, users: torch.Tensor) -> dict[str, float]:
    both, p = 0 < labels.sum() < len(labels), logits.double().sigmoid()
    ranking = one_user_at_a_time(logits, labels, users)
    del ranking["gauc_users"]
    return {
        "auc": auc_of_pairs(logits.tolist(), labels.tolist()) if both else math.nan,
        "logloss": -(labels * p.log() + (1 - labels) * (1 - p).log()).mean().item(),
        **ranking,
        "samples": len(labels),
    }


def test_groups_without_rows_are_undefined_and_say_nothing() -> None:
    metrics = FrequencyMetrics({"user": FrequencyGroups.from_counts(torch.tensor([3]), 1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.update(torch.randn(4), torch.tensor([0, 1, 1, 0]), torch.zeros(4, dtype=torch.int64), torch.arange(4))
        result = metrics.compute()
    assert result["samples/user_q1"] == 4
    assert result["samples/user_never"] == 0
    assert math.isnan(result["auc/user_never"])


def test_metrics_as_tables() -> None:
    groups = {entity: FrequencyGroups.from_counts(torch.tensor([1, 2, 3, 4]), 5) for entity in ("user", "item")}
    metrics = FrequencyMetrics(groups)
    metrics.update(torch.zeros(0), torch.zeros(0), *torch.zeros(2, 0, dtype=torch.int64))
    figures = metrics.compute()
    assert all(map(is_grouped, figures))
    assert not any(map(is_grouped, ("auc", "ndcg@10", "samples/s")))
    tables = by_entity({"auc": 0.5} | figures)
    assert list(tables) == ["user", "item"]
    assert tables["item"]["train_rows_max"] == [1, 2, 3, 4, 0]
    assert len(figures) == sum(len(values) for table in tables.values() for values in table.values())
    assert by_entity({"auc": 0.5}) == {}
