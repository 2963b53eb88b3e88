"""The comparisons with RecBole: one stopwatch, the same data for both, metrics that are checked, and the sums made."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from cove_dist.distributed import process_group
from cove_dist.tasks.configuration import load_run_config
from data_pipeline.history import History
from data_pipeline.schema import SPLITS, Schema
from tests.unit.data.prepare_helpers import prepare_custom, read_split, write_csv

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
epochs, turns, cf, sequential, ours = map(
    importlib.import_module, ("epochs", "recbole_turns", "recbole_cf", "recbole_sequential", "recbole_ours")
)
sys.path.remove(BENCHMARKS)

SETTINGS = argparse.Namespace(
    **{"learning_rate": 0.01, "our_learning_rate": None, "weight_decay": 0.0, "warmup": 0, "evaluation_scores": None},
    **{"layers": 1, "heads": 2, "dropout": 0.1, "lists": 8, "samples": 16},
)


class Fake:
    """Has these validation values, one after the other."""

    name, steps_per_epoch = "fake", 7

    def __init__(self, values: list[float]) -> None:
        self.values, self.noted = iter(values), []

    def train_epoch(self, epoch: int, max_steps: int | None) -> int:
        self.epoch = epoch
        return max_steps or self.steps_per_epoch

    def validate(self) -> dict[str, float]:
        return {"ndcg@10": next(self.values)}

    def note_best(self) -> None:
        self.noted.append(self.epoch)

    def test(self) -> dict[str, float]:
        return {"ndcg@10": float(self.noted[-1])}


def test_the_best_epoch_is_tested_and_patience_ends_the_run() -> None:
    fake = Fake([0.1, 0.3, 0.2, 0.3, 9.0])
    record = epochs.run(fake, epochs.Plan(epochs=5, patience=2))
    assert (len(record["epochs"]), fake.noted, record["test"]) == (4, [0, 1], {"ndcg@10": 1.0})


def test_evaluations_are_as_far_apart_as_asked_and_the_last_epoch_has_one() -> None:
    record = epochs.run(Fake([0.1, 0.2, 0.3]), epochs.Plan(epochs=5, evaluate_every=2))
    assert ["validation" in epoch for epoch in record["epochs"]] == [False, True, False, True, True]


def test_epochs_cut_short_have_no_quality() -> None:
    record = epochs.run(Fake([0.1]), epochs.Plan(epochs=1, max_steps=3))
    assert (record["epochs"][0]["steps"], record["test"]) == (3, None)


def record(*trained: tuple[float, float], steps: int = 2, test: float | None = 0.5) -> dict:
    """Of a run whose epochs took so many seconds, with such validation."""
    told = [{"steps": steps, "train_s": s, "evaluation_s": 1.0, "validation": {"ndcg@10": v}} for s, v in trained]
    return {"steps_per_epoch": 10, "epochs": told, "test": None if test is None else {"ndcg@10": test}}


def test_seconds_are_scaled_to_whole_epochs_and_counted_until_the_quality() -> None:
    recbole = record((9.0, 0.1), (4.0, 0.4), (8.0, 0.3))
    mine = record((1.0, 0.2), (2.0, 0.5), test=0.6)
    found = turns.figures(mine, recbole)
    assert found["epoch_s"] == 10.0  # of 2 steps in 2 s
    assert found["epoch_ratio"] == 3.0  # RecBole: the median of 20 and 40
    assert (found["until_s"], found["until_share"]) == (3.0, 3 / 13)
    assert found["test_ratio"] == pytest.approx(1.2)
    assert turns.seconds_until(mine, 0.6) is None
    assert "until_s" not in turns.figures(record((1.0, 0.1), test=None), record((1.0, 0.1), test=None))


def test_summary_is_of_medians_and_its_tables_show_what_there_is() -> None:
    recbole = record((1.0, 0.1), (6.0, 0.2))
    rounds = [
        {"model": "m", "runs": {turns.RECBOLE: recbole, "ours": record((1.0, 0.1), (s, q))}}
        for s, q in ((1.0, 0.3), (3.0, 0.3), (2.0, 0.1))
    ]
    theirs, mine = turns.summarize(rounds)
    assert (mine["epoch_s"], mine["epoch_ratio"], mine["rounds"]) == (10.0, 3.0, 3)
    assert mine["until_s"] is None  # one round never got there
    assert (theirs["until_s"], theirs["until_share"]) == (7.0, 1.0)
    assert [table.title for table in turns.tables([theirs, mine])] == ["Seconds", "Quality"]


def test_contestants_whose_batches_differ_are_refused() -> None:
    with pytest.raises(SystemExit, match="batches differ"):
        turns.check_steps({"a": {"steps_per_epoch": 3}, "b": {"steps_per_epoch": 4}})


def test_recbole_gets_the_same_rows(interactions: Path, tmp_path: Path) -> None:
    cf.write_recbole(interactions, tmp_path)
    for split, part in cf.PARTS.items():
        header, *lines = (tmp_path / "cf" / f"cf.{part}.inter").read_text().splitlines()
        assert header == "user_id:token\titem_id:token"
        rows = [f"{row['user_id']}\t{row['item_id']}" for row in read_split(interactions, split)]
        assert lines == rows


def test_few_users_are_the_first_with_their_rows(interactions: Path, tmp_path: Path) -> None:
    cf.write_recbole(interactions, tmp_path, users=5)
    lines = (tmp_path / "cf" / "cf.test.inter").read_text().splitlines()[1:]
    expected = sorted(read_split(interactions, "test"), key=lambda row: row["user_id"])[:5]
    assert lines == [f"{row['user_id']}\t{row['item_id']}" for row in expected]


def ranked_lists(data: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Ten items a user that it does not have, but the test item at place user % 12; and the metrics by hand."""
    had = [History.load(data, split) for split in SPLITS]
    users = np.flatnonzero(np.diff(had[2].offsets))
    items, ndcg, hits = [], [], []
    for user in users:
        taken = {int(i) for history in had for i in history.of(np.array([user]))[1]}
        others = [i for i in range(Schema.load(data).entity("item").num_seen) if i not in taken][:10]
        place = int(user) % 12
        if place < 10:
            others[place] = int(had[2].of(np.array([user]))[1][0])
        items.append(others)
        hits.append(place < 10)
        ndcg.append(1 / math.log2(place + 2) if place < 10 else 0)
    figures = {"ndcg@10": np.mean(ndcg), "recall@10": np.mean(hits), "hr@10": np.mean(hits)}
    return {"users": users, "items": np.array(items)}, {name: float(x) for name, x in figures.items()}


def test_metrics_of_lists_must_be_what_recbole_reports(interactions: Path) -> None:
    lists, figures = ranked_lists(interactions)
    assert cf.check_agreement(lists, figures, interactions)["unseen_items_listed"] == 0
    with pytest.raises(SystemExit, match="do not mean the same"):
        cf.check_agreement(lists, figures | {"ndcg@10": figures["ndcg@10"] + 1e-4}, interactions)


def test_lists_with_items_of_the_history_are_refused(interactions: Path) -> None:
    lists, figures = ranked_lists(interactions)
    lists["items"][3, 9] = History.load(interactions, "train").of(lists["users"][3:4])[1][0]
    with pytest.raises(SystemExit, match="earlier splits"):
        cf.check_agreement(lists, figures, interactions)


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[int]]]:
    """Prepared with inputs of up to four items; the histories by encoded ids."""
    folder, rng = tmp_path_factory.mktemp("next"), np.random.default_rng(1)
    raw = {user: rng.permutation(12)[: 3 + user].tolist() for user in range(10)}
    rows = [(user, item, 1, time) for user, items in raw.items() for time, item in enumerate(items)]
    prepare_custom(write_csv(folder / "raw.csv", rows), folder / "out", label=None, sequences=4)
    items = sequential.pq.read_table(folder / "out" / "ids" / "item_id.parquet")["original_id"].to_pylist()
    return folder / "out", {user: [items.index(item) for item in kept] for user, kept in raw.items()}


def test_whole_histories_are_joined_from_their_pieces(histories: tuple[Path, dict], tmp_path: Path) -> None:
    folder, whole = histories
    assert sequential.whole_histories(folder) == whole
    sequential.write_recbole(folder, tmp_path)
    lines = (tmp_path / "next" / "next.inter").read_text().splitlines()[1:]
    assert lines == [f"{u}\t{item}\t{place}" for u, items in whole.items() for place, item in enumerate(items)]


def test_interactions_are_no_histories(interactions: Path) -> None:
    with pytest.raises(SystemExit, match="split=leave_one_out sequences=50"):
        sequential.whole_histories(interactions)


def test_metrics_of_next_items_must_be_what_recbole_reports(histories: tuple[Path, dict]) -> None:
    folder, whole = histories
    users = np.array(sorted(whole))
    items = np.array([[i for i in range(12) if i != whole[u][-1]][:10] for u in users])
    items[4, 6] = whole[4][-1]
    hit = {"recall@10": 0.1, "hr@10": 0.1}
    figures = hit | {"ndcg@10": 0.1 / math.log2(8)}
    assert sequential.check_agreement({"users": users, "items": items}, figures, folder) == pytest.approx(figures)
    with pytest.raises(SystemExit, match="do not mean the same"):
        sequential.check_agreement({"users": users, "items": items}, hit | {"ndcg@10": 0.1}, folder)


@pytest.mark.parametrize(("program", "model"), [(p, m) for p in (cf, sequential) for m in p.MODELS])
def test_settings_of_both_programs_are_sound(program, model: str, tmp_path: Path) -> None:
    settings = argparse.Namespace(**vars(SETTINGS), data=tmp_path)
    config, _ = load_run_config(program.our_overrides(model, 3, settings))
    assert (config.seed, config.embeddings.optimizer.learning_rate) == (3, 0.01)
    arguments = (model, tmp_path, 3, settings) if program is cf else (model, tmp_path, 20, 3, settings)
    assert json.loads(json.dumps(program.recbole_config(*arguments)))["seed"] == 3


def test_ours_trains_and_is_evaluated_on_both_kinds_of_data(interactions: Path, histories: tuple[Path, dict]) -> None:
    for program, model, data in ((cf, "bprmf", interactions), (sequential, "gru4rec", histories[0])):
        settings = argparse.Namespace(**vars(SETTINGS), data=data)
        config, _ = load_run_config([*program.our_overrides(model, 0, settings), "embeddings.dim=8"])
        with process_group("cpu") as context:
            contestant = ours.Ours(config, Schema.load(data), context)
            told = epochs.run(contestant, epochs.Plan(epochs=2))
        assert [epoch["steps"] for epoch in told["epochs"]] == [contestant.steps_per_epoch] * 2
        assert set(told["test"]) == {"ndcg@10", "recall@10", "hr@10"}
        assert told["test"]["hr@10"] == told["test"]["recall@10"] >= told["test"]["ndcg@10"] > 0
