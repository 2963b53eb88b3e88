"""Small ranking problems with everything that goes wrong, and what they must give, one user at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from cove_dist.config.evaluation import EvaluationConfig
from cove_dist.distributed import DistributedContext
from cove_dist.evaluation import CTRMetrics
from cove_dist.tasks.cf.evaluator import FullRanking, SampledRanking
from data_pipeline.history import write_history
from data_pipeline.schema import CANDIDATES
from data_pipeline.streaming.partition import row_block
from tests.unit.evaluation.ties import METRICS, expected

KS = (1, 3, 12)
SPLITS = ("train", "validation", "test")
Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """Scores ``[users, items]``, and pairs of user and item in each split; the last items and users are unseen."""

    scores: np.ndarray
    seen_users: int
    seen_items: int
    pairs: dict[str, list[tuple[int, int]]]

    @classmethod
    def draw(cls, seed: int) -> Case:
        """Of few items or many, constant scores, with ties or without; users without positives, or with all items."""
        rng = np.random.default_rng(seed)
        users, items = rng.integers(1, 10), rng.choice([1, 2, 7, 40, 150])
        seen_users, seen_items = max(1, users - rng.integers(0, 3)), max(1, items - rng.integers(0, 3))
        levels = rng.choice([1, 2, 5, 10_000])
        scores = rng.integers(levels, size=(users, items)).astype(np.float32)
        scores[seen_users:] = scores[seen_users - 1]  # one row for all unseen users
        scores[:, seen_items:] = scores[:, :1]
        pairs: dict[str, list[tuple[int, int]]] = {}
        for split, share in zip(SPLITS, rng.choice([0.0, 0.1, 0.5, 1.0], size=3), strict=True):
            chosen = rng.random((users, items)) < share * rng.choice([0, 0.5, 1], size=(users, 1))
            pairs[split] = [(int(user), int(item)) for user, item in zip(*chosen.nonzero(), strict=True)]
        pairs["validation"] += pairs["validation"][:2]  # repeated
        pairs["test"] += pairs["test"][-2:]
        return cls(scores, seen_users, seen_items, {split: sorted(rows) for split, rows in pairs.items()})

    def write(self, folder: Path) -> None:
        """Write the histories."""
        for split, rows in self.pairs.items():
            columns = np.array(rows, np.int64).reshape(-1, 2)
            write_history([(columns[:, 0], columns[:, 1])], len(self.scores), len(rows), folder / "history" / split)

    def candidates(self, seed: int) -> np.ndarray:
        """Of each test row: its item and four others, int64 ``[rows, 5]``."""
        rng = np.random.default_rng(seed)
        items = np.array([item for _, item in self.pairs["test"]], np.int64)
        return np.column_stack([items, rng.integers(self.scores.shape[1], size=(len(items), 4))])


class Scores:
    """A model and its vectors, which are the ids."""

    def __init__(self, case: Case, context: DistributedContext) -> None:
        self._scores, self._block = torch.from_numpy(case.scores), (case.seen_items, context.rank, context.world_size)

    def users(self, ids: torch.Tensor) -> torch.Tensor:
        return ids.float().unsqueeze(1)

    items = users

    def all_items(self) -> None:
        """Have no vectors of all items."""

    def item_block(self) -> tuple[int, torch.Tensor]:
        first, last = row_block(*self._block)
        return first, self.items(torch.arange(first, last))

    def score_all(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self._scores[users[:, 0].long()][:, items[:, 0].long()]

    def __call__(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self._scores[users[:, 0].long().unsqueeze(1), items[:, :, 0].long()]


def settings(folder: Path) -> Any:
    return SimpleNamespace(data=SimpleNamespace(path=str(folder)), evaluation=EvaluationConfig(KS, KS))


def full(case: Case, folder: Path, batch_size: int, context: DistributedContext) -> Figures:
    """What `FullRanking` gives on this rank."""
    seen = {"user": case.seen_users - 1, "item": case.seen_items}  # the last seen user's row serves unseen ones
    schema = SimpleNamespace(entity=lambda name: SimpleNamespace(num_seen=seen[name]))
    model = Scores(case, context)
    return FullRanking(settings(folder), schema, "test", batch_size, context)(model, model)


def sampled(case: Case, candidates: np.ndarray, batch_size: int, context: DistributedContext) -> Figures:
    """What `SampledRanking` gives on this rank, which has every W-th user's rows."""
    rows = [
        (user, items)
        for (user, _), items in zip(case.pairs["test"], candidates, strict=True)
        if user % context.world_size == context.rank
    ]
    steps = -(-max(1, len(case.pairs["test"])) // batch_size)
    batches = [batch_of(rows[i * batch_size : (i + 1) * batch_size]) for i in range(steps)]
    model = Scores(case, context)
    return SampledRanking(batches, settings(Path()).evaluation, {}, context)(model, model)


def batch_of(rows: list[tuple[int, np.ndarray]]) -> Any:
    users = torch.tensor([user for user, _ in rows], dtype=torch.int64)
    items = torch.from_numpy(np.array([items for _, items in rows], np.int64).reshape(len(rows), 5))
    columns = {"user_id": users, CANDIDATES: items.flatten()}
    ids = {name: SimpleNamespace(values=lambda value=value: value) for name, value in columns.items()}
    batch = SimpleNamespace(ids=ids, users=users, items=items[:, 0])
    batch.to = lambda device: batch
    return batch


def ctr(case: Case, batch_size: int, seed: int, context: DistributedContext) -> Figures:
    """What `CTRMetrics` gives on this rank, which has every W-th user; a user's rows come in any order."""
    logits, labels, users = ctr_rows(case)
    order = np.random.default_rng(seed).permutation(len(users))
    order = order[np.argsort(users[order], kind="stable")]
    order = order[users[order] % context.world_size == context.rank]
    metrics = CTRMetrics(KS, KS)
    rows = [torch.from_numpy(column[order]) for column in (logits, labels, users)]
    for batch in zip(*(column.split(batch_size) for column in rows), strict=True):
        metrics.update(*batch)
    return metrics.compute()


def ctr_rows(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and users: rows of the test pairs as positives, of the training pairs as negatives."""
    rows = [(user, item, float(split == "test")) for split in ("train", "test") for user, item in case.pairs[split]]
    users, items, labels = (np.array([row[i] for row in rows]) for i in range(3))
    logits = case.scores[users.astype(int), items.astype(int)] / 7 if rows else np.zeros(0, np.float32)
    return logits, labels.astype(np.float32), users.astype(np.int64)


def expected_full(case: Case) -> Figures:
    lists, shown = [], {k: set() for k in KS}
    for user, scores in enumerate(case.scores):
        relevant = {item for other, item in case.pairs["test"] if other == user}
        if not relevant:
            continue
        had = {item for split in ("train", "validation") for other, item in case.pairs[split] if other == user}
        left = [item for item in range(case.seen_items) if item not in had]
        lists.append(([scores[item] for item in left], [item in relevant for item in left], len(relevant)))
        for k in KS:
            shown[k] |= set(sorted(left, key=lambda item: -scores[item])[:k])  # stable: the lower item first
    coverage = {f"full_coverage@{k}": len(shown[k]) / case.seen_items for k in KS}
    return means(lists, "full_", METRICS) | coverage | {"full_users": len(lists)}


def expected_sampled(case: Case, candidates: np.ndarray) -> Figures:
    lists = [
        (case.scores[user, items].tolist(), [place == 0 for place in range(5)], 1)
        for (user, _), items in zip(case.pairs["test"], candidates, strict=True)
    ]
    users = {user for user, _ in case.pairs["test"]}
    return means(lists, "", METRICS) | {"users": len(users), "rows": len(lists)}


def expected_ctr(case: Case) -> Figures:
    """The ranking metrics, and the AUC by comparing all pairs."""
    logits, labels, users = ctr_rows(case)
    lists, aucs = [], []
    for user in set(users.tolist()):
        own = users == user
        if labels[own].any():
            lists.append((logits[own].tolist(), (labels[own] == 1).tolist(), int(labels[own].sum())))
        if 0 < labels[own].sum() < own.sum():
            aucs += [pairwise_auc(logits[own], labels[own])] * int(own.sum())
    both = 0 < labels.sum() < len(labels)
    return means(lists, "", ("ndcg", "hr")) | {
        "auc": pairwise_auc(logits, labels) if both else math.nan,
        "gauc": float(np.mean(aucs)) if aucs else math.nan,
        "users": len(lists),
        "samples": len(labels),
    }


def pairwise_auc(logits: np.ndarray, labels: np.ndarray) -> float:
    difference = logits[labels == 1][:, None] - logits[labels == 0]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def means(lists: list[tuple[list[float], list[bool], int]], prefix: str, names: tuple[str, ...]) -> Figures:
    """Lists: scores of the items that are ranked, which are relevant, and how many are relevant in all."""
    values = {k: [expected(*each, k) for each in lists] for k in KS}
    return {
        f"{prefix}{name}@{k}": float(np.mean([value[name] for value in values[k]])) if lists else math.nan
        for name in names
        for k in KS
    }
