"""Runs on the data of two days, and what they stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cove_dist.checkpoints.storage import load_state, read_metadata
from cove_dist.training.program import train
from data_pipeline.id_tables import read_original_ids
from data_pipeline.schema import Schema
from tests.distributed.ranks import run_ranks
from tests.interactions import SMALL_RUN
from tests.two_days import TwoDays

FAST = (*SMALL_RUN, "trainer.optimizer.learning_rate=0.05", "embeddings.optimizer.learning_rate=0.05")
CODES = ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]")
TABLES = {"user": "user_id", "item": "item_id"}


def trained(days: TwoDays, name: str, *overrides: str, ranks: int = 1) -> Path:
    output = days.yesterday.parent / name
    run_ranks(ranks, train, [*FAST, f"data.path={days.yesterday}", f"output={output}", *overrides])
    return output


def stored(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint."""
    path = max((run / "checkpoints").glob("step_*"))
    entries = read_metadata(path).state_dict_metadata
    state = {name: torch.zeros(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
    load_state(path, state)
    return state


def originals(data: Path, table: str) -> list[Any]:
    """The original ids with a table row, in order of the rows."""
    seen = {column.table_name: column.num_seen for column in Schema.load(data).categorical}
    ids = read_original_ids(data, table).to_pylist()
    return ids[: seen.get(table)]
