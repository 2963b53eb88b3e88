"""Learning rates that fall reach fused, sparse and data-parallel tables alike."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import ROW_WISE, small_run
from tests.interactions import SMALL_RUN


def moved(trained: Trainer) -> list[float]:
    """How far the tables move at each step."""
    trained.train_state.model.train()
    tables, found = trained.train_state.model.module.tables, []

    def values() -> torch.Tensor:
        weights = tables.state_dict().values()
        shards = [w.local_shards()[0].tensor if hasattr(w, "local_shards") else w for w in weights]
        return torch.cat([shard.flatten().clone() for shard in shards])

    before = values()
    for _ in islice(trained.steps(iter(trained.train_loader)), 4):
        after = values()
        found.append(float((after - before).norm()))
        before = after
    return found


@pytest.mark.parametrize("kind", ["fused", "data_parallel", "sparse"])
def test_tables_move_in_proportion_to_the_rate(
    kind: str, prepared: Path, interactions: Path, context: DistributedContext
) -> None:
    """At a rate so small that gradients stay as they are."""
    tables = {
        "fused": ("embeddings.optimizer.name=sgd", ROW_WISE[1]),
        "data_parallel": ("embeddings.optimizer.name=sgd", "embeddings.sharding.default=data_parallel"),
        "sparse": ("embeddings.optimizer.name=sparse_rmsprop",),
    }[kind]
    base = [*SMALL_RUN, "model=bprmf", f"data.path={interactions}"] if kind == "sparse" else small_run(prepared)
    small = ("embeddings.optimizer.learning_rate=1e-3", "trainer.max_steps=4", "embeddings.init_std=0.3")

    def steps(schedule: str) -> list[float]:
        config, _ = load_run_config([*base, *tables, *small, f"trainer.schedule.name={schedule}"])
        return moved(Trainer(config, Schema.load(config.data.path), context))

    constant, falling = steps("constant"), steps("linear")
    assert min(constant) > 0
    ratios = [fall / stay for fall, stay in zip(falling, constant, strict=True)]
    assert ratios == pytest.approx([1, 0.75, 0.5, 0.25], rel=0.03)
