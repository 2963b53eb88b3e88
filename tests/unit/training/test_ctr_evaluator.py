from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import FrequencyGroups
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.config import CTREvaluationConfig
from cove_dist.tasks.ctr.evaluator import PredictionWriter, Scored, ctr_loader, evaluate
from cove_dist.training.program import train
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema
from tests.configurations import small_run


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


def test_weighted_metrics_follow_from_the_saved_predictions(prepared: Path, tmp_path: Path) -> None:
    rows, random = 200, torch.Generator().manual_seed(0)
    users, items = (torch.randint(40, (rows,), generator=random).sort().values for _ in range(2))
    labels = torch.randint(2, (rows,), generator=random).float()
    weights = torch.rand(rows, generator=random) * 3
    columns = {"labels": labels, "users": users, "items": items, "sample_weights": weights}
    logits = torch.randn(rows, generator=random)
    halves = [slice(0, rows // 2), slice(rows // 2, rows)]
    scored = [
        Scored(SimpleNamespace(**{name: each[half] for name, each in columns.items()}), logits[half], None)
        for half in halves
    ]
    writer = PredictionWriter(tmp_path / "part.parquet", prepared, replace(Schema.load(prepared), weight="weight"))
    settings = CTREvaluationConfig(ndcg_at=(3,), hit_rate_at=(), weighted=True)
    metrics = evaluate(writer.write(scored), settings, torch.device("cpu"), {})
    assert pq.read_metadata(tmp_path / "part.parquet").num_row_groups == 1
    saved = pq.read_table(tmp_path / "part.parquet")
    assert saved.column_names == ["user", "item", "label", "score", "weight"]
    label, score, weight = (saved[name].to_numpy().astype(float) for name in ("label", "score", "weight"))
    np.testing.assert_allclose(weight, weights)
    assert metrics["auc"] == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-4)
    assert metrics["logloss"] == pytest.approx(log_loss(label, score, sample_weight=weight), rel=1e-5)
    assert abs(metrics["auc"] - roc_auc_score(label, score)) > 1e-3


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
