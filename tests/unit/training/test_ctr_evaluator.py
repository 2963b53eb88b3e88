from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch

from cove_dist.config import EvaluationConfig
from cove_dist.evaluation import FrequencyGroups
from cove_dist.training.ctr_evaluator import evaluate


def test_what_is_undefined_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning about the metrics over all rows, none about those of groups."""
    ids = torch.tensor([0, 0, 1])
    batch = SimpleNamespace(labels=torch.zeros(3), users=ids, items=ids)
    groups = {"item": FrequencyGroups.from_counts(torch.tensor([5, 6]), 2)}
    settings = EvaluationConfig(ndcg_at=(3,), hit_rate_at=())
    with caplog.at_level(logging.WARNING):
        metrics = evaluate([(batch, torch.randn(3))], settings, torch.device("cpu"), groups)
    [record] = caplog.records
    assert record.message.endswith("users with both: auc, auc_error, gauc, ndcg@3")
    assert {name for name in metrics if "/" not in name} == {
        *("auc", "auc_error", "logloss", "gauc", "ndcg@3", "users", "samples")
    }
    assert metrics["samples/item_q1"] == 2
    assert math.isnan(metrics["gauc/item_q1"])
