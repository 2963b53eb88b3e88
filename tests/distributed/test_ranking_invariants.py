"""Every evaluator on 1, 2 and 4 ranks, on many small problems, against one user at a time in plain Python."""

from __future__ import annotations

import math
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from cove_dist.distributed import process_group
from tests.distributed import ranking_cases as cases
from tests.distributed.ranking_cases import Case, Figures
from tests.distributed.ranks import run_ranks

SEEDS = range(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rankings")
    for seed in SEEDS:
        Case.draw(seed).write(path / str(seed))
    return path


@pytest.fixture(scope="module")
def plain() -> list[dict[str, Figures]]:
    """Of every problem, by evaluator, what plain Python finds."""
    drawn = [(seed, Case.draw(seed)) for seed in SEEDS]
    return [
        {
            "full": cases.expected_full(case),
            "sampled": cases.expected_sampled(case, case.candidates(seed)),
            "ctr": cases.expected_ctr(case),
        }
        for seed, case in drawn
    ]


def figures_of_rank(folder: Path) -> list[dict[str, Figures]]:
    """Of every problem, by evaluator; batches and chunks are of other sizes for other numbers of ranks."""
    found = []
    with process_group("cpu") as context:
        for seed in SEEDS:
            case, batch_size = Case.draw(seed), 1 + (seed * context.world_size) % 5
            with patch("cove_dist.evaluation.search._SCORES", 64 * (seed % 3) * context.world_size):
                full = cases.full(case, folder / str(seed), batch_size, context)
            sampled = cases.sampled(case, case.candidates(seed), batch_size, context)
            ctr = cases.ctr(case, batch_size, context.world_size, context)
            found.append({"full": full, "sampled": sampled, "ctr": ctr})
    return found


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_metrics_are_those_of_plain_python_on_any_number_of_ranks(
    world_size: int, folder: Path, plain: list[dict[str, Figures]]
) -> None:
    results = run_ranks(world_size, figures_of_rank, folder, seconds=240)
    for seed in SEEDS:
        for rank in results:
            for kind, expected in plain[seed].items():
                found = rank[seed][kind]
                assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9, nan_ok=True)
                bounded = [value for name, value in found.items() if "@" in name or name in ("auc", "gauc")]
                assert all(math.isnan(value) or 0 <= value <= 1 + 1e-12 for value in bounded)


def test_the_problems_have_all_that_must_be_tried() -> None:
    drawn = [Case.draw(seed) for seed in SEEDS]
    users = [[{i for u, i in case.pairs["test"] if u == user} for user in range(len(case.scores))] for case in drawn]
    assert any(case.seen_items < min(cases.KS[1:]) for case in drawn)
    assert any(np.ptp(case.scores) == 0 and case.scores.shape[1] > 100 for case in drawn)
    assert any(not items for own in users for items in own)
    assert any(len(items) == case.scores.shape[1] > 5 for case, own in zip(drawn, users, strict=True) for items in own)
    assert any(
        max(items, default=0) >= case.seen_items for case, own in zip(drawn, users, strict=True) for items in own
    )
    assert any(own[user] for case, own in zip(drawn, users, strict=True) for user in range(case.seen_users, len(own)))
    assert any(set(case.pairs["test"]) & set(case.pairs["train"]) for case in drawn)


def evaluate_with(bad: float, kind: str, folder: Path) -> Figures:
    case = Case.draw(next(seed for seed in SEEDS if Case.draw(seed).scores.shape == (9, 150)))
    case.scores[:, -20:] = bad  # a rank holds finite scores alone
    with process_group("cpu") as context:
        if kind == "full":
            return cases.full(case, folder, 3, context)
        if kind == "sampled":
            return cases.sampled(case, case.candidates(0), 3, context)
        return cases.ctr(case, 100, 0, context)


@pytest.mark.parametrize(("kind", "bad"), [("full", math.nan), ("full", -math.inf), ("sampled", math.nan)])
def test_scores_that_are_not_finite_are_refused(kind: str, bad: float, folder: Path) -> None:
    with pytest.raises(AssertionError, match=r"FloatingPointError: .*are not finite"):
        run_ranks(2, evaluate_with, bad, kind, folder / "0")
