"""Warm starts on data that keep the ids of earlier data, on 1 and 2 ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cove_dist.inference.evaluate import evaluate_run
from cove_dist.inference.run import Run
from cove_dist.training.program import train
from data_pipeline.schema import Schema
from tests.distributed.ranks import run_ranks
from tests.distributed.test_warm_start import refused
from tests.distributed.warm_runs import CODES, TABLES, originals, stored, trained
from tests.two_days import TwoDays


@pytest.mark.parametrize("ranks", [1, 2])
def test_kept_rows_stay_as_they_were_and_are_served_by_original_id(
    days: TwoDays, first: Path, tmp_path: Path, ranks: int
) -> None:
    data = days.keeping()
    given = [f"warm_start={first}", f"data={data}", "warm_start.gone=keep", "trainer.device=cpu"]
    weighted = ["quantizer.alpha=0", "quantizer.beta=0", "embeddings.optimizer.weight_decay=0"]
    run_ranks(ranks, train, [*given, *weighted, "trainer.epochs=3", f"output={tmp_path / 'run'}"])
    there, here, schema = stored(first), stored(tmp_path / "run"), Schema.load(data)
    counts = json.loads((tmp_path / "run" / "warm_start.json").read_text())["tables"]
    for entity, table in TABLES.items():
        column, name = schema.entity(entity), f"model.tables.embeddings.{table}.weight"
        former, ids = originals(days.yesterday, table), originals(data, table)
        assert set(former) <= set(ids) and column.kept > 3
        assert (counts[table]["gone"], counts[table]["kept"]) == (0, column.kept)
        trained = [row for row in range(column.num_trained) if ids[row] in former]
        kept = range(column.num_trained, column.num_seen)
        rows = {row: former.index(ids[row]) for row in (*trained, *kept)}
        same = {row for row, before in rows.items() if torch.equal(here[name][row], there[name][before])}
        assert set(kept) <= same and not same & set(trained)
    run = Run(tmp_path / "run")
    user, item = originals(data, "user_id")[-1], originals(data, "item_id")[-1]
    assert item in run.recommend(users=[user], k=len(originals(data, "item_id")))["item"].to_pylist()
    assert {user} < set(run.embeddings("user")["original_id"].to_pylist())
    evaluated = evaluate_run([f"run={run.folder}", "device=cpu"])
    kept = schema.entity("item").kept
    assert evaluated.protocol["words"].endswith(f"; candidates include {kept} kept items without training rows")


def test_the_commitment_loss_of_a_graph_model_leaves_kept_rows_as_they_were(days: TwoDays, tmp_path: Path) -> None:
    """It is over the rows of whole tables, not of a batch."""
    run, data = trained(days, "graph", "model=lightgcn", *CODES, ranks=2), days.keeping()
    given = [f"warm_start={run}", f"data={data}", "warm_start.gone=keep", "trainer.device=cpu"]
    run_ranks(2, train, [*given, f"output={tmp_path / 'run'}"])
    there, here, schema = stored(run), stored(tmp_path / "run"), Schema.load(data)
    for entity, table in TABLES.items():
        column, name = schema.entity(entity), f"model.tables.embeddings.{table}.weight"
        former, ids = originals(days.yesterday, table), originals(data, table)
        both = [row for row in range(column.num_seen) if ids[row] in former]
        same = [row for row in both if torch.equal(here[name][row], there[name][former.index(ids[row])])]
        assert same == list(range(column.num_trained, column.num_seen)) and len(same) == column.kept > 3


def test_data_without_rows_for_all_ids_are_refused(days: TwoDays, first: Path) -> None:
    text = refused(f"warm_start={first}", f"data={days.today}", "warm_start.gone=keep")
    gone = [len(set(originals(days.yesterday, t)) - set(originals(days.today, t))) for t in TABLES.values()]
    assert f"no rows for ids of {first}: {gone[0]} of user_id, {gone[1]} of item_id." in text
    assert f"keep_ids={days.yesterday}" in text
