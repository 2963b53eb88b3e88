"""Folding in rows: what the gradient steps minimize, alone or with others, and what they leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cove_dist.config.embeddings import TableOptimizerConfig
from cove_dist.embeddings.frequency_decay import decay_factors
from cove_dist.errors import ConfigError
from cove_dist.inference.fold_in import fold_in as fold_in_ids
from cove_dist.models.cf.base import Recommender
from cove_dist.models.cf.bprmf import BPRMF
from cove_dist.models.cf.cfkg import CFKG
from cove_dist.models.cf.neumf import NeuMF
from cove_dist.tasks.cf.fold_in import FoldInSettings, Frozen, Neighbors, Pool, _others, fold_in, weight_decay_of
from cove_dist.tasks.cf.model import CFObjective
from cove_dist.tasks.cf.new_rows import _chunks, item_pairs, mean_of_pairs
from data_pipeline.history import History
from data_pipeline.schema import Categorical, Entity, Schema
from data_pipeline.streaming.draws import Draws, epoch_key

DIM, ITEMS = 8, 60
SCHEMA = Schema(
    "data", None, (Categorical("user_id", 9, 9, "user"), Categorical("item_id", ITEMS, ITEMS, "item")), (), {}
)
HEADS = {"bprmf": BPRMF(DIM), "neumf": NeuMF(DIM, hidden_units=(6,)), "cfkg": CFKG(DIM, 1)}


def frozen_of(head: Recommender, width: int = DIM) -> Frozen:
    random = torch.Generator().manual_seed(1)
    items, users, positives = (torch.randn(count, width, generator=random) for count in (ITEMS, 30, 30))
    pool = Pool(np.arange(ITEMS), items, users, positives, 2.0)
    return Frozen(CFObjective(head, {}, 0.0, SCHEMA).eval(), pool, lambda users, items: np.zeros(len(users), bool))


def neighbors_of(frozen: Frozen, ids: list[int]) -> Neighbors:
    """Three items, or users with the vectors of these items, for each id."""
    others = np.concatenate([np.sort(np.random.default_rng(i).choice(ITEMS, 3, replace=False)) for i in ids])
    return Neighbors(np.array(ids), np.repeat(np.arange(len(ids)), 3), others, frozen.pool.item_vectors[others])


def constant(decay: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda pairs: torch.full(pairs.shape, decay)


@pytest.mark.parametrize("entity", ["user", "item"])
@pytest.mark.parametrize("name", HEADS)
def test_a_row_does_not_depend_on_those_it_is_folded_in_with_and_the_model_stays(name: str, entity: Entity) -> None:
    width = DIM * HEADS[name].rows_per_id
    frozen, settings = frozen_of(HEADS[name], width), FoldInSettings(20, 0.05, weight_decay=constant(0.5))
    before = [each.clone() for each in frozen.objective.parameters()]
    together = fold_in(frozen, entity, torch.zeros(3, width), neighbors_of(frozen, [4, 7, 8]), settings)
    for row, number in zip(together, (4, 7, 8), strict=True):
        alone = fold_in(frozen, entity, torch.zeros(1, width), neighbors_of(frozen, [number]), settings)
        assert alone[0].tolist() == pytest.approx(row.tolist(), abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.objective.parameters(), strict=True))
    assert all(each.grad is None for each in frozen.objective.parameters())


def test_a_user_approaches_the_minimum_of_the_expected_loss() -> None:
    """The minimum over all negatives, by L-BFGS in float64; the steps draw some of them."""
    frozen = frozen_of(HEADS["bprmf"])
    neighbors, items = neighbors_of(frozen, [3]), frozen.pool.item_vectors.double()
    negatives = items[np.setdiff1d(np.arange(ITEMS), neighbors.others)]
    row = torch.zeros(DIM, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([row], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        margins = (neighbors.vectors.double() @ row)[:, None] - negatives @ row
        value = torch.nn.functional.softplus(-margins).mean(1).sum() + row.square().sum() * 2.0 / 2
        value.backward()
        return value

    optimizer.step(loss)
    loss()
    assert row.grad.norm() < 1e-4
    found = fold_in(
        frozen, "user", torch.zeros(1, DIM), neighbors, FoldInSettings(600, 0.005, weight_decay=constant(2.0))
    )[0]
    assert torch.cosine_similarity(found.double(), row.detach(), dim=0) > 0.97
    assert found.norm().item() == pytest.approx(row.detach().norm().item(), rel=0.15)


@pytest.mark.parametrize(("entity", "looked_up"), [("user", 3), ("item", 3 + 2)])
def test_regularization_weighs_every_time_that_a_row_would_be_looked_up(entity: Entity, looked_up: int) -> None:
    """Three pairs, and two draws as a negative for an item."""
    regularized, plain = (frozen_of(BPRMF(DIM, regularization=value)) for value in (0.3, 0.0))
    start, neighbors = torch.full((1, DIM), 0.5), neighbors_of(plain, [4])
    decay = FoldInSettings(10, 0.05, weight_decay=constant(0.3 * looked_up))
    expected = fold_in(plain, entity, start, neighbors, decay)
    torch.testing.assert_close(fold_in(regularized, entity, start, neighbors, FoldInSettings(10, 0.05)), expected)


def test_negatives_of_a_user_are_not_its_items() -> None:
    frozen = frozen_of(HEADS["bprmf"])
    neighbors = neighbors_of(frozen, [1, 2])
    for step in range(50):
        drawn = frozen.pool.items[_others(neighbors, frozen.pool.items, Draws(epoch_key(0, step), 0, 0))]
        for row in (0, 1):
            assert not set(drawn[neighbors.rows == row]) & set(neighbors.others[neighbors.rows == row])


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("entity", ["user", "item"])
def test_a_row_decays_as_the_row_of_a_trained_id_with_as_many_interactions(entity: Entity, power: float) -> None:
    """The decay of an epoch in training: of every step, summed over interactions."""
    lists = [[0, 3, 5], [], [3], [1, 3, 4, 5], [5]]
    history = History(np.cumsum([0, *map(len, lists)]), np.concatenate(lists).astype(int))
    counts = torch.tensor([len(each) for each in lists] if entity == "user" else [1, 1, 0, 3, 1, 3])
    factors = decay_factors(counts, power) if power else torch.ones(len(counts))
    optimizer = TableOptimizerConfig("adam", 0.01, 1e-3, "all", power)
    decay = weight_decay_of(optimizer, history, entity)
    assert decay is not None
    assert decay(counts)[counts > 0].tolist() == pytest.approx((factors * 1e-3 * 9)[counts > 0].tolist())
    assert weight_decay_of(replace(optimizer, weight_decay=0.0), history, entity) is None


def test_pairs_of_items_are_those_of_a_loop_and_chunks_keep_them_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[0, 3, 5], [], [3], [1, 3, 4, 5], [5]]
    history = History(np.cumsum([0, *map(len, lists)]), np.concatenate(lists).astype(int))
    monkeypatch.setattr("cove_dist.tasks.cf.new_rows._USERS_AT_ONCE", 2)
    monkeypatch.setattr("cove_dist.tasks.cf.new_rows._PAIRS_AT_ONCE", 2)
    wanted = np.array([1, 3, 5])
    places, users = item_pairs(history, wanted)
    expected = [(p, u) for p, item in enumerate(wanted) for u, own in enumerate(lists) if item in own]
    assert list(zip(places.tolist(), users.tolist(), strict=True)) == expected
    chunks = [each.tolist() for each, _ in _chunks(places, users)]
    assert chunks == [[0], [1, 1, 1], [2, 2, 2]]


def test_means_are_in_float64() -> None:
    rows = torch.tensor([[2.0**24], [1.0], [1.0], [7.0]])
    which = torch.tensor([0, 0, 0, 2])
    assert mean_of_pairs(rows, which, 3).tolist() == [[torch.tensor((2.0**24 + 2) / 3).item()], [0.0], [7.0]]


@pytest.mark.parametrize("entity", ["user", "item"])
def test_steps_that_diverge_name_the_learning_rate(entity: Entity) -> None:
    frozen = frozen_of(HEADS["bprmf"])
    settings = FoldInSettings(5, 0.5, key="warm_start.fold_in_learning_rate")
    with pytest.raises(ConfigError, match=r"warm_start\.fold_in_learning_rate = 0\.5: folding in 2 rows diverged"):
        fold_in(frozen, entity, torch.full((2, DIM), math.inf), neighbors_of(frozen, [1, 2]), settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interactions": [1, 2]}, r"interactions: of type list; give \{new id: \[known id, …\]\}, a pyarrow.Table"),
        ({"learning_rate": math.nan}, "learning_rate = nan: must be above 0, and at most 1e6"),
        ({"learning_rate": math.inf}, "learning_rate = inf: must be"),
        ({"learning_rate": "0.1"}, "learning_rate = '0.1': must be"),
        ({"steps": 0}, "steps = 0: allowed: whole numbers from 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    ids = SimpleNamespace(type_in_files=pa.int64())
    session = SimpleNamespace(
        inference=SimpleNamespace(check_fold_in=lambda: None), schema=SCHEMA, table=lambda entity: ids
    )
    arguments = {"interactions": {"new": [1]}, "entity": "user", "unknown": "error", "steps": 3, "learning_rate": 0.1}
    with pytest.raises(ConfigError, match=message):
        fold_in_ids(session, **(arguments | changes))  # type: ignore[arg-type]
