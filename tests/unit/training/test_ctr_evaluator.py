from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import FrequencyGroups
from cove_dist.evaluation.metrics_files import all_metrics
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.config import CTREvaluationConfig
from cove_dist.tasks.ctr.evaluator import Scored, ctr_loader, evaluate
from cove_dist.training.program import train
from data_pipeline.errors import DataError
from data_pipeline.schema import REQUEST, Schema
from tests.configurations import small_run
from tests.requests import with_requests
from tests.unit.evaluation.ties import expected, mind_mrr


def test_what_is_undefined_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning about the metrics over all rows, none about those of groups."""
    ids = torch.tensor([0, 0, 1])
    batch = SimpleNamespace(labels=torch.zeros(3), users=ids, items=ids)
    groups = {"item": FrequencyGroups.from_counts(torch.tensor([5, 6]), 2)}
    settings = CTREvaluationConfig(ndcg_at=(3,), hit_rate_at=())
    with caplog.at_level(logging.WARNING):
        metrics = evaluate([Scored(batch, torch.randn(3), None)], settings, torch.device("cpu"), groups)
    [record] = caplog.records
    assert record.message.startswith("Skipping auc, auc_error, gauc, mean_auc, mrr, mind_mrr, ndcg@3: the split has no")
    assert {name for name in metrics if "/" not in name} == {
        *("auc", "auc_error", "logloss", "gauc", "mean_auc", "mrr", "mind_mrr", "ndcg@3", "users", "samples")
    }
    assert metrics["samples/item_q1"] == 2
    assert math.isnan(metrics["gauc/item_q1"])


@pytest.fixture(scope="module")
def requests(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_requests(prepared, tmp_path_factory.mktemp("requests") / "data")


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


def test_a_run_ranks_the_rows_of_each_request(requests: Path, tmp_path: Path) -> None:
    """Early stopping, metrics by frequency and the metrics file are of requests, equal to the plain definitions."""
    run = tmp_path / "run"
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


def test_data_without_requests_are_refused_before_training(prepared: Path, tmp_path: Path) -> None:
    message = r"evaluation.group_by = request_id: synthetic was prepared without requests; .* request=COLUMN"
    with pytest.raises(ConfigError, match=message):
        train(small_run(prepared, tmp_path / "run", "evaluation.group_by=request_id"))
    assert not (tmp_path / "run").exists()


def test_a_prepared_folder_that_lacks_the_column_says_so(prepared: Path) -> None:
    config, _ = load_run_config(small_run(prepared, "unused", "evaluation.group_by=request_id"))
    with pytest.raises(DataError, match="no column 'request_id'"):
        ctr_loader(
            config, replace(Schema.load(prepared), requests=5), "test", DistributedContext(0, 1, 1, torch.device("cpu"))
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.group_by=session"], "group_by = session: input should be 'user_id' or 'request_id'"),
        (["model=bprmf", "trainer=cf", "evaluation.group_by=request_id"], "group_by"),
        (["model=sasrec", "trainer=sequential", "evaluation.group_by=request_id"], "group_by"),
        (["evaluation.exclude_seen=true"], "exclude_seen"),
        (["model=bprmf", "trainer=cf", "evaluation.exclude_seen=false"], "exclude_seen"),
    ],
)
def test_settings_of_another_task_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.{message}"):
        load_run_config(overrides)
