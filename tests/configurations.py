"""Overrides for small runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cove_dist.evaluation.metrics_files import Evaluated
from cove_dist.evaluation.protocol import RankingProtocol

COVE = ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]")
ROW_WISE = ("embeddings.optimizer.name=rowwise_adagrad", "embeddings.sharding.default=row_wise")


def small_run(prepared: Path, output: Path | str = "unused", *overrides: str) -> list[str]:
    """DeepFM with two small layers on a small prepared folder, on CPU."""
    return [
        "data=synthetic",
        f"data.path={prepared}",
        f"output={output}",
        "model.hidden_units=[16,8]",
        "embeddings.dim=8",
        "trainer.device=cpu",
        "trainer.batch_size=240",
        "trainer.evaluation_batch_size=128",
        "trainer.epochs=2",
        "trainer.log_every=1",
        "trainer.shuffle_buffer=512",
        *overrides,
    ]


def ctr_protocol(ndcg_at: Sequence[int] = (1, 5, 10), **fields: Any) -> dict[str, Any]:
    """How an evaluation of a CTR model ranks."""
    return replace(RankingProtocol("ctr", "ranking per user", tuple(ndcg_at), (5,)), **fields).record()


def evaluated(metrics: Mapping[str, float | None], **fields: Any) -> Evaluated:
    """What an evaluation of a CTR model finds."""
    given = {"split": "test", "kind": "best", "checkpoint": "step_00000002", "best_by": "auc", "data": "f00"} | fields
    if "step" not in given:
        given["step"] = int(given["checkpoint"].removeprefix("step_"))
    protocol = given.pop("protocol", ctr_protocol())
    defined = {name: None if value is None or math.isnan(value) else value for name, value in metrics.items()}
    return Evaluated(protocol=protocol, metrics=defined, **given)
