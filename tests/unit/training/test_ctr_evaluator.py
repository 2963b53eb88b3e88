from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import FrequencyGroups
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.config import CTREvaluationConfig
from cove_dist.tasks.ctr.evaluator import Scored, ctr_loader, evaluate
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
