"""Metrics reduced over real gloo ranks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from cove_dist.distributed import process_group
from cove_dist.evaluation import CTRMetrics, FrequencyGroups, FrequencyMetrics
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.frequency import frequency_groups
from data_pipeline.schema import Schema
from tests.configurations import small_run
from tests.distributed.ranks import run_ranks
from tests.unit.data.prepare_helpers import prepare_custom, read_split, some_rows, write_csv

BATCH = 16
Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def sample() -> Sample:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-5, 6, (200,), generator=generator) / 4
    labels = (torch.rand(200, generator=generator) < 0.4).float()
    return logits, labels, torch.arange(200) // 9


def metrics_of(rows: Sample) -> dict[str, float]:
    """Of users, and of requests: one a user, whose numbers fall where those of users rise."""
    metrics, by_request = CTRMetrics(), CTRMetrics(group_by="request_id")
    for logits, labels, users in zip(*(column.split(BATCH) for column in rows), strict=True):
        metrics.update(logits, labels, users)
        by_request.update(logits, labels, users, requests=-users)
    found = by_request.compute()
    return metrics.compute() | {f"request_{name}": value for name, value in found.items()}


def metrics_of_rank(boundaries: list[int]) -> dict[str, float]:
    """The metrics when this rank has the users between its boundaries."""
    with process_group("cpu") as context:
        first, last = boundaries[context.rank : context.rank + 2]
        logits, labels, users = sample()
        rows = (users >= first) & (users < last)
        return metrics_of((logits[rows], labels[rows], users[rows]))


@pytest.mark.parametrize("boundaries", [[0, 5, 23], [0, 0, 23]], ids=["uneven", "one-rank-empty"])
def test_two_ranks_give_what_one_gives(boundaries: list[int]) -> None:
    """The ranks differ in their number of batches, and each holds an unfinished user at the end."""
    first, second = run_ranks(2, metrics_of_rank, boundaries)
    assert first == second == pytest.approx(metrics_of(sample()), abs=1e-12)


GROUPED = {
    "user": FrequencyGroups.from_counts(torch.arange(20) % 6, 23),
    "item": FrequencyGroups.from_counts(torch.arange(11) % 5 + 1, 14),
}


def grouped_metrics_of(rows: Sample) -> dict[str, float]:
    metrics = FrequencyMetrics(GROUPED)
    for logits, labels, users in zip(*(column.split(BATCH) for column in rows), strict=True):
        metrics.update(logits, labels, users, items=(logits * 4 + users).long() % 14)
    return metrics.compute()


def grouped_metrics_of_rank(boundaries: list[int]) -> dict[str, float]:
    """The same by groups of ids."""
    with process_group("cpu") as context:
        first, last = boundaries[context.rank : context.rank + 2]
        logits, labels, users = sample()
        rows = (users >= first) & (users < last)
        return grouped_metrics_of((logits[rows], labels[rows], users[rows]))


@pytest.mark.parametrize("boundaries", [[0, 5, 23], [0, 3, 3, 17, 23]], ids=["two", "four-one-empty"])
def test_ranks_give_the_metrics_of_groups_that_one_gives(boundaries: list[int]) -> None:
    expected = grouped_metrics_of(sample())
    assert sum(expected[f"samples/item_{group}"] for group in ("q1", "q2", "q3", "q4", "never")) == 200
    for found in run_ranks(len(boundaries) - 1, grouped_metrics_of_rank, boundaries):
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def groups_of_data(folder: Path) -> dict[str, tuple[list[int], list[dict[str, float]]]]:
    """Which id is in which group, and the groups' figures: tensors would not outlive their rank."""
    config, _ = load_run_config(small_run(folder))
    with process_group("cpu") as context:
        groups = frequency_groups(config, Schema.load(folder), context)
        return {entity: (each.of_id.tolist(), list(each.statistics)) for entity, each in groups.items()}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_groups_are_those_of_the_training_rows(ranks: int, tmp_path: Path) -> None:
    """Items of one user alone are rare where training has them, and never occur where test does."""
    rows = [row for row in some_rows(users=41) if (row[0] * row[1]) % 3]
    schema = prepare_custom(write_csv(tmp_path / "raw.csv", rows), tmp_path / "data")
    training = read_split(tmp_path / "data", "train")
    for found in run_ranks(ranks, groups_of_data, tmp_path / "data"):
        for entity, (of_id, figures) in found.items():
            column = schema.entity(entity)
            counts = Counter(row[column.name] for row in training)
            expected = FrequencyGroups.from_counts(
                torch.tensor([counts[i] for i in range(column.num_ids)]), column.num_ids
            )
            assert of_id == expected.of_id.tolist()
            assert figures == [pytest.approx(each, nan_ok=True) for each in expected.statistics]
            assert figures[-1]["ids"] == column.num_ids - len(counts)
            assert figures[0]["train_rows_min"] == min(counts.values())
    assert figures[-1]["ids"] > 0
