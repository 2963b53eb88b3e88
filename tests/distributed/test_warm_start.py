"""Warm starts on 1, 2 and 4 ranks: rows and optimizer state by original id, new rows, refusals."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from cove_dist.distributed import barrier, process_group
from cove_dist.embeddings.parts import local_parts, table_weights
from cove_dist.errors import CheckpointError, ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training import warm_start
from cove_dist.training.build import TrainState, build
from cove_dist.training.program import train
from cove_dist.training.warm_start import count_trained_pairs, start_warm
from cove_dist.warm_start.transfer import _tensors
from data_pipeline.history import History
from data_pipeline.schema import Schema
from tests.configurations import small_run
from tests.distributed.ranks import run_ranks
from tests.distributed.warm_runs import CODES, FAST, TABLES, originals, stored, trained
from tests.two_days import TwoDays

ROW_WISE = ("embeddings.optimizer.name=rowwise_adagrad", "embeddings.sharding.default=row_wise")
COLUMN_WISE = (ROW_WISE[0], "embeddings.sharding.default=column_wise", "embeddings.dim=64")
SPARSE = (
    "embeddings.optimizer.name=sparse_rmsprop",
    "embeddings.optimizer.weight_decay=0.01",
    "embeddings.optimizer.weight_decay_rows=looked_up",
)


def started(overrides: list[str]) -> dict[str, list[tuple[int, int, np.ndarray]]]:
    """Start warm without training; return this rank's parts of every tensor, with their offsets."""
    config, _ = load_run_config(["trainer.device=cpu", "output=unused", *overrides])
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        train_state = build(config, schema, context, 10)
        start_warm(config, schema, context, train_state)
        return parts_of(train_state)


def parts_of(train_state: TrainState) -> dict[str, list[tuple[int, int, np.ndarray]]]:
    found = {}
    for name, tensor in _tensors(train_state.state_dict()):
        found[name] = [(part.row, part.column, part.values.numpy().copy()) for part in local_parts(tensor)]
    return found


def whole(ranks: list[dict[str, Any]], name: str) -> np.ndarray:
    """Assemble a tensor from the parts of all ranks."""
    parts = [part for rank in ranks for part in rank[name]]
    if parts[0][2].ndim < 2:
        flat = np.empty(max(row + len(values) for row, _, values in parts), parts[0][2].dtype)
        for row, _, values in parts:
            flat[row : row + len(values)] = values
        return flat
    shape = max(row + len(v) for row, _, v in parts), max(column + v.shape[1] for _, column, v in parts)
    found = np.empty(shape, parts[0][2].dtype)
    for row, column, values in parts:
        found[row : row + len(values), column : column + values.shape[1]] = values
    return found


def same_rows(days: TwoDays, table: str) -> tuple[list[int], list[int], list[int]]:
    """Rows of today with their rows of yesterday, the out-of-vocabulary row last; and the new rows."""
    there, here = originals(days.yesterday, table), originals(days.today, table)
    pairs = [(row, there.index(i)) for row, i in enumerate(here) if i in there] + [(len(here), len(there))]
    new = [row for row, i in enumerate(here) if i not in there]
    return [row for row, _ in pairs], [row for _, row in pairs], new


def validations(run: Path) -> list[dict[str, float]]:
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in r.items() if "@" in k} for r in records if r["kind"] == "validation"]


@pytest.mark.parametrize(
    ("before", "after", "overrides", "sharding"),
    [
        (1, 1, (*CODES, "quantizer.learning=ema"), ()),
        (1, 2, (ROW_WISE[0], "embeddings.sharding.default=data_parallel"), (ROW_WISE[1],)),
        (2, 1, COLUMN_WISE, ("embeddings.sharding.default=row_wise",)),
    ],
    ids=["one-to-one", "one-to-two", "two-to-one"],
)
def test_the_first_validation_on_unchanged_data_is_the_last_one_of_the_run(
    days: TwoDays, tmp_path: Path, before: int, after: int, overrides: tuple[str, ...], sharding: tuple[str, ...]
) -> None:
    run = trained(days, tmp_path.name, "model=bprmf", *overrides, ranks=before)
    again = [f"warm_start={run}", f"data={days.yesterday}", f"output={tmp_path / 'again'}", "trainer.device=cpu"]
    run_ranks(after, train, [*again, "trainer.epochs=1", *sharding])
    last, start = validations(run)[-1], validations(tmp_path / "again")[0]
    assert len(last) > 10
    # Ranks add up their users' gains in another order.
    assert start == (last if before == after else pytest.approx(last, rel=1e-15))
    counts = json.loads((tmp_path / "again" / "warm_start.json").read_text())["tables"]
    assert all((c["new"], c["gone"]) == (0, 0) and c["matched"] > 30 for c in counts.values())


@pytest.mark.parametrize("model", [("model=bprmf", *CODES, "quantizer.learning=ema"), ("model=cfkg", *SPARSE)])
def test_rows_and_their_state_move_by_original_id_and_the_rest_as_it_is(
    days: TwoDays, tmp_path: Path, model: tuple[str, ...]
) -> None:
    run = trained(days, tmp_path.name, *model)
    there, here = stored(run), run_ranks(1, started, [f"warm_start={run}", f"data={days.today}"])
    tables = [table for table in (*TABLES.values(), "attributes") if f"model.tables.embeddings.{table}.weight" in there]
    of_rows = set()
    for name in here[0]:
        table = next((table for table in tables if f"embeddings.{table}.weight" in name), None)
        now, before = whole(here, name) if here[0][name][0][2].ndim else here[0][name][0][2], there[name].numpy()
        if table is None or now.ndim == 0:
            assert np.array_equal(now, before), name
            continue
        rows, former, new = same_rows(days, table)
        assert np.array_equal(now[rows], before[former]), name
        if name.endswith("decay_of_row"):
            assert (now[new] == there[name.replace("decay_of_row", "decay_total")].item()).all()
        elif name.startswith("optimizer"):
            assert not now[new].any(), name
        of_rows.add(name)
    assert len(of_rows) >= 3 * len(tables)
    assert all(len(same_rows(days, table)[2]) > 3 for table in TABLES.values())


@pytest.mark.parametrize("start", ["random", "fold_in"])
def test_two_and_four_ranks_start_as_one(days: TwoDays, first: Path, start: str, tmp_path: Path) -> None:
    run = first if start == "random" else trained(days, tmp_path.name, "model=neumf", *ROW_WISE)
    given = [f"warm_start={run}", f"data={days.today}", f"warm_start.new_rows={start}"]
    steps = ["warm_start.fold_in_steps=5"] if start == "fold_in" else []
    one, two, four = (run_ranks(ranks, started, [*given, *steps]) for ranks in (1, 2, 4))
    for name in one[0]:
        if one[0][name][0][2].ndim == 0:
            continue
        for several in (two, four):
            assert whole(several, name) == pytest.approx(whole(one, name), abs=1e-6), name


SEQUENTIAL = ("data=aotm", "model=bert4rec", "model.num_layers=1", "model.num_heads=2", "embeddings.dim=8")


@pytest.mark.parametrize("task", ["ctr", "sequential"])
def test_other_tasks_start_with_their_first_order_weights_and_item_biases(
    task: str, prepared: Path, prepared_lists: Path, tmp_path: Path
) -> None:
    data = prepared if task == "ctr" else prepared_lists
    small = ("trainer.device=cpu", "trainer.batch_size=60", "trainer.epochs=1", "trainer.max_steps=6")
    model = small_run(prepared, "unused")[3:] if task == "ctr" else SEQUENTIAL
    run_ranks(1, train, [*model, *small, f"data.path={data}", f"output={tmp_path / 'first'}"])
    there, here = (
        stored(tmp_path / "first"),
        run_ranks(2, started, [f"warm_start={tmp_path / 'first'}", f"data={data}"]),
    )
    named = "_first_order" if task == "ctr" else "item_bias"
    assert any(named in name and there[name].any() for name in there)
    for name in here[0]:
        values = whole(here, name) if here[0][name][0][2].ndim else here[0][name][0][2]
        assert np.array_equal(values, there[name].numpy()), name
    text = refused(f"warm_start={tmp_path / 'first'}", f"data={data}", "warm_start.new_rows=fold_in")
    assert f"new_rows = fold_in: needs the neighbors of users and items; the task {task} has none" in text


def users_of_item(data: Path, item: int) -> list[int]:
    history = History.load(data, "train")
    return [u for u in range(len(history)) if item in history.items[slice(*history.offsets[u : u + 2])]]


def items_of_user(data: Path, user: int) -> list[int]:
    history = History.load(data, "train")
    return history.items[slice(*history.offsets[user : user + 2])].tolist()


@pytest.mark.parametrize("start", ["zero", "mean", "code"])
def test_new_rows_are_zero_the_mean_of_trained_neighbors_or_its_code(days: TwoDays, first: Path, start: str) -> None:
    here = run_ranks(1, started, [f"warm_start={first}", f"data={days.today}", f"warm_start.new_rows={start}"])
    weights = {e: whole(here, f"model.tables.embeddings.{t}.weight").astype(np.float64) for e, t in TABLES.items()}
    matched = {e: set(same_rows(days, t)[0]) for e, t in TABLES.items()}
    for entity, other, neighbors in (("user", "item", items_of_user), ("item", "user", users_of_item)):
        rows, _, new = same_rows(days, TABLES[entity])
        books = [whole(here, f"model.objective.quantizers.{entity}.codebooks.{level}") for level in (0, 1)]
        kinds = set()
        for row in new:
            known = [each for each in neighbors(days.today, row) if each in matched[other]]
            kinds.add(bool(known))
            expected = weights[entity][rows[:-1]].mean(0) if not known else weights[other][known].mean(0)
            if start == "code" and known:
                fine = books[0][np.square(books[0] - expected).sum(1).argmin()]
                expected = (fine + books[1][np.square(books[1] - fine).sum(1).argmin()]) / 2
            expected = np.zeros(8) if start == "zero" else expected
            assert weights[entity][row] == pytest.approx(expected, abs=1e-6)
        assert True in kinds


def test_a_warm_run_saves_its_start_trains_from_step_zero_and_resumes_without_starting_again(
    days: TwoDays, first: Path, tmp_path: Path
) -> None:
    given = [f"warm_start={first}", f"data={days.today}", f"output={tmp_path / 'run'}", "trainer.device=cpu"]
    given += ["trainer.warmup_steps=4", "quantizer.learning=ema"]
    run_ranks(1, train, [*given, "trainer.max_steps=3", "trainer.checkpoint.keep=5"])
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step_00000000", "step_00000003"]
    run_ranks(2, train, [*given, "trainer.max_steps=8", "trainer.checkpoint.keep=5", "trainer.checkpoint.resume=auto"])
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert next(r["step"] for r in records if r["kind"] == "validation") == 0
    rates = {r["step"]: r["learning_rate_tables"] for r in records if r["kind"] == "train"}
    assert [rates[1], rates[2]] == pytest.approx([0.05 / 2, 0.05 * 3 / 4])
    assert len([r for r in records if r["kind"] == "validation" and r["step"] == 0]) == 1


def slow_count(former: Any, folder: Any, schema: Any, split: str) -> int:
    time.sleep(2)
    return 7


def counted_slowly() -> dict[str, Any]:
    """Count for longer than a collective waits; return the counts of this rank after the next collective."""
    warm_start._former_data = lambda source: ([], True)
    warm_start.pairs_trained_before = slow_count
    source, config, schema = Mock(), Mock(), Mock()
    with process_group("cpu", timedelta(seconds=3)) as context:
        pairs = count_trained_pairs(source, config, schema, context)
        barrier()
    return pairs


def test_ranks_wait_for_the_count_of_pairs_longer_than_for_a_collective() -> None:
    assert run_ranks(2, counted_slowly) == [{"validation": 7, "test": 7}, {}]


def message(overrides: list[str]) -> str:
    try:
        started(overrides)
    except (ConfigError, CheckpointError) as error:
        return str(error)
    return "started"


def refused(*overrides: str) -> str:
    """Return the message of the refusal, from a process of its own."""
    return run_ranks(1, message, list(overrides))[0]


def test_what_does_not_fit_is_refused_by_its_key(days: TwoDays, first: Path, tmp_path: Path) -> None:
    given = (f"warm_start={first}", f"data={days.today}")
    text = refused(*given, "model=lightgcn", "embeddings.dim=12", "embeddings.optimizer.name=adagrad")
    assert "model._target_: cove_dist.models.cf.bprmf.BPRMF there, cove_dist.models.cf.lightgcn.LightGCN here" in text
    assert "embeddings.dim: 8 there, 12 here" in text
    assert "embeddings.optimizer.name: adam there, adagrad here" in text
    assert "quantizer.learning: ema there, gradient here" in refused(*given, "quantizer.learning=gradient",
                                                                       "quantizer.ema_decay=0.99")  # fmt: skip
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text((first / "config.yaml").read_text())
    assert "has no complete checkpoint; train that run first" in refused(f"warm_start={empty}", f"data={days.today}")
    moved = (first / "config.yaml").read_text().replace(str(days.yesterday), str(days.today))
    (empty / "config.yaml").write_text(moved)
    (empty / "checkpoints").symlink_to(first / "checkpoints")
    text = refused(f"warm_start={empty}", f"data={days.today}")
    assert "its data," in text and "have changed since it was trained" in text


def test_starts_that_a_model_cannot_have_are_refused(days: TwoDays) -> None:
    plain = trained(days, "plain", "model=lightgcn")
    given = (f"warm_start={plain}", f"data={days.today}")
    assert "new_rows = code: nothing is quantized" in refused(*given, "warm_start.new_rows=code")
    text = refused(*given, "warm_start.new_rows=fold_in")
    assert "new_rows = fold_in: not with LightGCN: its vectors are propagated over the graph" in text


def test_all_rows_of_tables_are_found_by_name(days: TwoDays) -> None:
    config, _ = load_run_config([*FAST, "model=cfkg", f"data.path={days.today}"])
    with process_group("cpu") as context:
        tables = build(config, Schema.load(days.today), context, 10).model.module.tables
        assert set(table_weights(tables)) == {"user_id", "item_id", "attributes"}
