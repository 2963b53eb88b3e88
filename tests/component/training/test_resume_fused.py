"""What a resumed run does about tables whose optimizer is fused into the backward pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen

from cove_dist.config import TableOptimizerConfig
from cove_dist.distributed import DistributedContext
from cove_dist.errors import CheckpointError
from cove_dist.runs import WARM_START_FILE
from cove_dist.tasks.base import Objective
from cove_dist.tasks.configuration import load_run_config
from cove_dist.torch_compat import lookups_of
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from cove_dist.training.warm_start import start_warm
from data_pipeline.schema import Schema
from tests.configurations import small_run

FUSED = ("embeddings.optimizer.name=rowwise_adagrad", "trainer.max_steps=2")


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with fused row-wise Adagrad."""
    folder = tmp_path_factory.mktemp("fused") / "run"
    train(small_run(prepared, folder, *FUSED))
    return folder


@pytest.fixture(scope="module")
def second(run: Path, prepared: Path) -> Path:
    """A run of two steps that was started from the first."""
    folder = run.parent / "second"
    train(small_run(prepared, folder, *FUSED, f"warm_start.run={run}"))
    return folder


def trainer(prepared: Path, run: Path, context: DistributedContext, *overrides: str) -> Trainer:
    config, _ = load_run_config(small_run(prepared, run, *FUSED, *overrides))
    return Trainer(config, Schema.load(prepared), context)


def kernels(training: Trainer) -> list[SplitTableBatchedEmbeddingBagsCodegen]:
    tables = training.train_state.model.module.tables
    modules = [module for lookup in lookups_of(tables) for module in lookup.modules()]
    return [module for module in modules if isinstance(module, SplitTableBatchedEmbeddingBagsCodegen)]


def test_fused_optimizers_continue_at_the_step_of_the_checkpoint(
    run: Path, prepared: Path, context: DistributedContext
) -> None:
    """Its state does not hold the step, which Adam, fused on CUDA only, corrects its moments by."""
    resumed = trainer(prepared, run, context)
    resumed.resume(run)
    assert [int(kernel.iter) for kernel in kernels(resumed)] == [2] * len(kernels(resumed)) != []


def test_fused_optimizers_count_the_steps_of_the_runs_that_a_run_was_started_from(
    run: Path, second: Path, prepared: Path, context: DistributedContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments move with their rows: corrected from step 1 again, Adam's first thousand steps would be too short."""
    assert json.loads((second / WARM_START_FILE).read_text())["steps"] == 2
    resumed = trainer(prepared, second, context, f"warm_start.run={run}")
    resumed.resume(second)
    assert {int(kernel.iter) for kernel in kernels(resumed)} == {4}
    third = trainer(prepared, second.parent / "third", context, f"warm_start.run={second}")
    restarted: list[Objective] = []
    monkeypatch.setattr(Objective, "reset_steps", lambda objective: restarted.append(objective))
    assert start_warm(third.config, third.schema, context, third.train_state).steps == 4
    assert restarted == [third.train_state.model.module.objective]  # what counts the steps of this run alone
    assert {int(kernel.iter) for kernel in kernels(third)} == {4}
    assert third.train_state.schedule.last_epoch == 0


def test_a_checkpoint_of_other_optimizers_is_refused_with_the_settings(
    run: Path, prepared: Path, context: DistributedContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this device had no fused kernel of the optimizer, as a CPU has none of Adam."""
    monkeypatch.setattr(TableOptimizerConfig, "is_fused_on", lambda *_: False)
    with pytest.raises(CheckpointError, match=r"trainer\.device = cpu .*embeddings\.optimizer\.name=rowwise_adagrad"):
        trainer(prepared, run, context).resume(run)
