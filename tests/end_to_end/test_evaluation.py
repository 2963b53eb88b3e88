"""Whole runs and their evaluation: rows that belong to requests, and folders with odd names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from cove_dist.evaluation.metrics_files import all_metrics
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.training.program import train
from data_pipeline.schema import REQUEST, Schema
from tests.configurations import small_run
from tests.requests import with_requests
from tests.unit.configuration.calling import command
from tests.unit.evaluation.ties import expected, mind_mrr


def plain_metrics(predictions: pa.Table, rows: pa.Table) -> dict[str, float]:
    """Means over requests, one at a time."""
    found: dict[str, list[float]] = {name: [] for name in ("mean_auc", "mrr", "mind_mrr", "ndcg@5", "hr@1")}
    requests = rows[REQUEST].to_numpy()
    scores, labels = (predictions[name].to_numpy() for name in ("score", "label"))
    for request in np.unique(requests):
        own, relevant = scores[requests == request].tolist(), labels[requests == request].tolist()
        if 0 < sum(relevant) < len(relevant):
            found["mean_auc"].append(roc_auc_score(relevant, own))
        if sum(relevant):
            at = {k: expected(own, [label == 1 for label in relevant], int(sum(relevant)), k) for k in (1, 5, len(own))}
            found["mrr"].append(at[len(own)]["mrr"])
            found["mind_mrr"].append(mind_mrr(own, relevant))
            found["ndcg@5"].append(at[5]["ndcg"])
            found["hr@1"].append(at[1]["hr"])
    return {name: sum(values) / len(values) for name, values in found.items()} | {"requests": len(found["mrr"])}


def test_a_run_ranks_the_rows_of_each_request(prepared: Path, tmp_path: Path) -> None:
    """Early stopping, metrics by frequency and the metrics file are of requests, equal to the plain definitions."""
    requests, run = with_requests(prepared, tmp_path / "data"), tmp_path / "run"
    given = ["evaluation.group_by=request_id", "evaluation.hit_rate_at=[1]", "trainer.early_stopping.metric=mrr"]
    train(small_run(requests, run, *given, "embeddings.init_std=0.3", "trainer.max_steps=6"))
    metrics = evaluate_run([f"run={run}", "device=cpu", "save_predictions=true"]).metrics
    [part] = (run / "predictions_test").glob("*.parquet")
    rows = pq.read_table([requests / file for file in Schema.load(requests).splits["test"].files])
    predictions = pq.read_table(part)
    assert predictions["request"].to_pylist() == rows[REQUEST].to_pylist()
    plain = plain_metrics(predictions, rows)
    assert {name: metrics[name] for name in plain} == pytest.approx(plain, abs=1e-6)
    assert metrics["requests/item_q1"] > 0
    assert [found.protocol["words"] for found in all_metrics(run)] == ["ranking per request"]


def test_a_run_in_a_folder_with_an_odd_name(prepared: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "dätä, [1] a=b", tmp_path / "it's a run, ä=[2]"
    shutil.copytree(prepared, data)
    command("train")(small_run(data, run, "trainer.max_steps=2", "trainer.epochs=1"))
    assert OmegaConf.load(run / "config.yaml").data.path == str(data)
    command("evaluate")([f"run={run}", "device=cpu"])
    assert [json.loads(path.read_text())["split"] for path in run.glob("metrics*.json")] == ["test"]
