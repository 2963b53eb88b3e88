"""Ranking all items for hidden states: ties, targets, what is left out, categories, scores that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.evaluation.sequential import NOTHING, ListCompletion, merge_depth_first
from cove_dist.models.layers.two_stage import TwoStageClassifier
from cove_dist.tasks.sequential import ranking
from cove_dist.tasks.sequential.decoding import Request, continue_sequences, rank_next
from cove_dist.tasks.sequential.evaluator import add_sequences
from cove_dist.tasks.sequential.ranking import Catalogue
from tests.unit.evaluation.ties import expected
from tests.unit.sequential.models import Parallel, Recurrent

D, DEPTH = 4, 6


def tied(items: int, seed: int, levels: int = 3) -> tuple[Catalogue, torch.Tensor]:
    """Items and hidden states of small whole numbers, whose products tie often and are exact."""
    generator = torch.Generator().manual_seed(seed)
    rows, hidden = (torch.randint(-levels, levels + 1, (n, D), generator=generator).float() for n in (items + 1, 40))
    return Catalogue(rows, rows[:items]), hidden


@given(st.integers(1, 40), st.integers(0, 2**31), st.booleans(), st.sampled_from([1, 300, 1 << 23]))
def test_positions_of_targets_are_exact(items: int, seed: int, exclude: bool, workspace: int) -> None:
    catalogue, hidden = tied(items, seed)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(items + 2, (40,), generator=generator)  # some of them unseen
    seen = torch.randint(-1, items + 2, (40, 3), generator=generator) if exclude else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_WORKSPACE", workspace)
        positions = catalogue.positions(hidden, targets, DEPTH, seen)
    scores = hidden @ catalogue.scored.T
    for k in (1, 3, DEPTH):
        hit, gain = positions.hit(k), positions.dcg(k)
        for row in range(40):
            left_out = seen[row].tolist() if exclude else []
            left = [item for item in range(items) if item not in left_out]
            plain = expected([scores[row, i].item() for i in left], [i == targets[row].item() for i in left], 1, k)
            assert hit[row].item() == pytest.approx(plain["hr"], abs=1e-12)
            assert gain[row].item() == pytest.approx(plain["ndcg"], abs=1e-12)


def test_ties_are_listed_in_an_order_that_knows_nothing_of_ids_or_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, hidden = tied(200, 0, levels=1)
    ranked = catalogue.rank(hidden, DEPTH)
    scores = hidden @ catalogue.scored.T
    torch.testing.assert_close(scores.gather(1, ranked), scores.topk(DEPTH).values)
    first_of_all_tied = Catalogue(torch.zeros(201, D), torch.zeros(200, D)).rank(hidden[:1], 200)[0]
    assert sorted(first_of_all_tied.tolist()) == list(range(200))
    assert abs(torch.corrcoef(torch.stack([first_of_all_tied, torch.arange(200)]).float())[0, 1]) < 0.2
    place = first_of_all_tied.argsort()
    for row in range(40):  # within every score the same order
        expected_order = sorted(range(200), key=lambda item: (-scores[row, item].item(), place[item].item()))
        assert ranked[row].tolist() == expected_order[:DEPTH]
    monkeypatch.setattr(ranking, "_WORKSPACE", 300)
    assert torch.equal(catalogue.rank(hidden, DEPTH), ranked)


def two_stage(items: int) -> tuple[Catalogue, torch.Tensor, torch.Tensor]:
    """A catalogue of three categories, one of them without items, hidden states, and their likeliest categories."""
    torch.manual_seed(0)
    classifier = TwoStageClassifier(D, 4).eval()
    catalogue, hidden = tied(items, 1)
    catalogue = Catalogue(catalogue.fed, catalogue.scored, torch.arange(items) % 3, classifier, torch.ones(items))
    return catalogue, hidden, classifier.category_log_probabilities(hidden, catalogue.categories).argmax(dim=1)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_only_items_of_the_likeliest_category_are_ranked(k: int) -> None:
    catalogue, hidden, likeliest = two_stage(20)
    ranked, scores = catalogue.rank(hidden, k), hidden @ catalogue.scored.T
    assert len(likeliest.unique()) > 1
    for row in range(40):
        members = (catalogue.categories == likeliest[row]).nonzero().squeeze(1)
        listed = ranked[row][ranked[row] >= 0]
        assert len(listed) == min(k, len(members))
        assert torch.isin(listed, members).all()
        assert scores[row, listed].tolist() == scores[row, members].sort(descending=True).values[:k].tolist()
        assert (ranked[row, len(listed) :] == -1).all()


def test_positions_inside_the_likeliest_category() -> None:
    catalogue, hidden, likeliest = two_stage(20)
    targets = torch.arange(40) % 22
    hit = catalogue.positions(hidden, targets, DEPTH).hit(2)
    scores = hidden @ catalogue.scored.T
    for row in range(40):
        members = (catalogue.categories == likeliest[row]).nonzero().squeeze(1).tolist()
        plain = expected([scores[row, i].item() for i in members], [i == targets[row].item() for i in members], 1, 2)
        assert hit[row].item() == pytest.approx(plain["hr"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    catalogue, hidden = tied(9, 0)
    catalogue.scored[4, 1] = bad
    with pytest.raises(FloatingPointError, match="scores are not finite"):
        catalogue.rank(hidden, 3)
    with pytest.raises(FloatingPointError, match="scores are not finite"):
        catalogue.positions(hidden, torch.zeros(40, dtype=torch.int64), 3, torch.full((40, 1), 4))  # though left out
    sound, hidden, _ = two_stage(9)
    with torch.no_grad():
        sound.two_stage.head[-1].bias[0] = bad
    with pytest.raises(FloatingPointError, match="scores are not finite"):
        sound.rank(hidden, 3)


@pytest.mark.parametrize("kind", [Recurrent, Parallel])
def test_next_items_by_positions_equal_those_by_lists_where_nothing_ties(kind: type) -> None:
    """And lists of one target in a batch with longer ones are what they are alone."""
    torch.manual_seed(0)
    model, items = kind(D, 5, 6).eval(), torch.randn(31, D)
    catalogue = Catalogue(items, items[:30])
    lengths, counts = torch.tensor([3, 1, 5, 2, 4]), torch.tensor([1, 3, 1, 2, 1])
    targets = torch.randint(30, (5, 3)).where(torch.arange(3) < counts[:, None], NOTHING)
    request = Request(torch.randint(31, (5, 5)), lengths, counts, None)
    by_list, mixed = ListCompletion((5,), (3,), 30), ListCompletion((5,), (3,), 30)
    by_list.update(merge_depth_first(continue_sequences(model, catalogue, request, 5), 5), targets)
    add_sequences(mixed, model, catalogue, request, targets)
    found = {name: value.item() for name, value in mixed.compute().items()}
    assert found == pytest.approx({name: value.item() for name, value in by_list.compute().items()}, nan_ok=True)


@pytest.mark.parametrize("kind", [Recurrent, Parallel])
def test_a_constant_model_of_next_items_gets_what_a_random_order_gets(kind: type) -> None:
    catalogue, model = Catalogue(torch.zeros(51, D), torch.zeros(50, D)), kind(D, 5, 6).eval()
    request = Request(torch.zeros(7, 5, dtype=torch.int64), torch.full((7,), 3), torch.ones(7, dtype=torch.int64), None)
    positions = rank_next(model, catalogue, request, torch.arange(7) * 7, 10)
    assert positions.hit(10).tolist() == pytest.approx([10 / 50] * 7)
    assert positions.dcg(10).tolist() == pytest.approx([sum(1 / math.log2(r + 1) for r in range(1, 11)) / 50] * 7)
