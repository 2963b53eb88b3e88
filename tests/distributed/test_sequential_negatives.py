"""Category negatives of a sampled softmax on real ranks: the codes, samples and losses of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cove_dist.distributed import process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.training.build import build
from data_pipeline.schema import Schema
from tests.component.sequential.runs import small_run
from tests.configurations import ROW_WISE
from tests.distributed.ranks import run_ranks

SHARE, CODES, SAMPLED = 0.4, 3, 40
SETTINGS = (
    *("sequential.softmax=sampled", f"sequential.sampled={SAMPLED}", "embeddings.init_std=0.3"),
    f"negatives.category_share={SHARE}",
)
SOURCES = {
    "kmeans": (*ROW_WISE, f"negatives.category_count={CODES}"),
    "quantizer": ("quantizer=negatives", f"quantizer.item_levels=[{CODES}]", "negatives.category_codes=quantizer"),
}


def second_epoch(data: Path) -> dict[str, dict[str, Any]]:
    """Return for every source the codes, the samples of the steps, and the loss of each global batch, untrained."""
    found = {}
    with process_group("cpu") as context:
        for name, source in SOURCES.items():
            config, _ = load_run_config(small_run(data, "Recurrent", "unused", *SETTINGS, *source))
            schema, task = Schema.load(config.data.path), task_of(config)
            loader = task.build_training_loader(config, schema, context)
            sharded = build(config, schema, context, 10).model
            hook = task.build_epoch_hook(config, schema, context, sharded.module, loader)
            assert hook is not None
            hook.start_epoch(0)
            hook.start_epoch(1)
            loader.set_epoch(1)
            losses, samples = [], []
            for batch in loader:
                with torch.no_grad():
                    _, output = sharded(batch)
                losses.append(output.losses["task"].double() * batch.weight / context.world_size)
                samples.append(batch.ids["vocabulary"].values().tolist())
            total = torch.stack(losses)
            dist.all_reduce(total)
            codes = hook.state_dict()["codes"].tolist()
            found[name] = {"codes": codes, "samples": samples, "losses": total.tolist()}
    return found


@pytest.fixture(scope="module")
def one(prepared_lists: Path) -> dict[str, dict[str, Any]]:
    return run_ranks(1, second_epoch, prepared_lists)[0]


@pytest.mark.parametrize("world_size", [2, 4])
def test_codes_samples_and_losses_are_those_of_one_process(
    prepared_lists: Path, one: dict[str, Any], world_size: int
) -> None:
    for rank in run_ranks(world_size, second_epoch, prepared_lists):
        for name in SOURCES:
            assert (rank[name]["codes"], rank[name]["samples"]) == (one[name]["codes"], one[name]["samples"])
            assert rank[name]["losses"] == pytest.approx(one[name]["losses"], rel=1e-5)


@pytest.mark.parametrize("name", SOURCES)
def test_a_sample_has_a_part_of_every_category(name: str, one: dict[str, Any]) -> None:
    codes = np.array(one[name]["codes"])
    of_each = int(SAMPLED * SHARE / (1 - SHARE + CODES * SHARE))
    for sample in one[name]["samples"]:
        parts = codes[sample][SAMPLED - CODES * of_each :].reshape(CODES, of_each)
        for code, part in enumerate(parts):
            assert set(part) == {code} or code not in codes
