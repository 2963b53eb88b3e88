"""What diverged is noticed: losses at their step, parameters and moments before a save."""

from __future__ import annotations

import math
from itertools import cycle
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.distributed import DistributedContext
from cove_dist.errors import TrainingError
from cove_dist.faults.finite import LossCheck, check_state
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from data_pipeline.id_tables import read_original_id
from data_pipeline.streaming.loader import EpochIterator
from tests.component.training.test_trainer import trainer
from tests.configurations import COVE, ROW_WISE, small_run

REPLICATED = "embeddings.sharding.default=data_parallel"


def noted(context: DistributedContext, *losses: dict[str, float]) -> LossCheck:
    check = LossCheck(context)
    for step, values in enumerate(losses, start=1):
        check.note(step, {name: torch.tensor(value) for name, value in values.items()})
    return check


def test_finite_losses_pass_and_so_does_a_run_without_steps(context: DistributedContext) -> None:
    noted(context).check()
    noted(context, {"loss": 3e38, "task": 0.0}, {"loss": -1.0, "task": 1e-45}).check()


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_the_first_step_and_the_losses_that_were_not_finite_are_named(
    context: DistributedContext, fault: float
) -> None:
    fine = {"loss": 1.0, "task": 1.0, "quantization_item": 0.1}
    check = noted(context, fine, fine | {"task": fault}, dict.fromkeys(fine, math.nan), fine)
    with pytest.raises(TrainingError, match=r"loss not finite at step 2 \(task\): .*learning_rate"):
        check.check()


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated", "row-wise"])
def test_each_parameter_buffer_and_moment_is_looked_at(
    prepared: Path, context: DistributedContext, tables: tuple[str, ...]
) -> None:
    trained = trainer(prepared, context, "trainer.max_steps=2", *COVE, "quantizer.learning=ema", *tables)
    trained.train(None)
    state = trained.train_state.state_dict()
    check_state(state, 2)
    found = 0
    for (name, tensor), fault in zip(tensors_of(state), cycle((math.nan, math.inf, -math.inf)), strict=False):
        flat = tensor.view(-1)
        before = flat[-1].item()
        flat[-1] = fault
        with pytest.raises(TrainingError, match=rf"{name} not finite after step 2 on rank 0"):
            check_state(state, 2)
        flat[-1] = before
        found += 1
    assert found > 15
    check_state(state, 2)


def tensors_of(state: dict) -> list[tuple[str, torch.Tensor]]:
    """Every tensor of floating point that a checkpoint holds, with a pattern for its name."""
    model = [(f"model.{name}", value) for name, value in state["model"].items()]
    moments = [(name, value) for part in state["optimizer"]["state"].values() for name, value in part.items()]
    local = [(n, v.local_shards()[0].tensor if hasattr(v, "local_shards") else v) for n, v in [*model, *moments]]
    return [(name, v.detach()) for name, v in local if isinstance(v, torch.Tensor) and v.is_floating_point()]


def overflow_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """An update that makes a weight infinite at a step whose loss was finite."""
    after_step = TrainingLoop.after_step

    def overflowing(self: TrainingLoop, output, batches) -> None:
        if self.progress.step == step:
            with torch.no_grad():
                next(self.trainer.train_state.model.module.objective.parameters()).view(-1)[0] = math.inf
        after_step(self, output, batches)

    monkeypatch.setattr(TrainingLoop, "after_step", overflowing)


@pytest.mark.parametrize(
    ("step", "every", "message"),
    [
        (10, 100, "not finite after step 10"),  # the last step of the epoch: no further loss would tell
        (6, 3, "not finite after step 6"),  # the step of a save
        (4, 3, "loss not finite at step 5"),  # before the next save, long before the next report
    ],
)
def test_a_state_that_is_not_finite_is_neither_evaluated_nor_saved(
    prepared: Path,
    context: DistributedContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    every: int,
    message: str,
) -> None:
    overflow_at(monkeypatch, step)
    broken = trainer(prepared, context, "trainer.log_every=1000", f"trainer.checkpoint.every_steps={every}")
    monkeypatch.setattr(broken, "evaluate", lambda: pytest.fail("evaluated"))
    with pytest.raises(TrainingError, match=message):
        broken.train(tmp_path)
    saved = [path.name for path in CheckpointFolder(tmp_path / "checkpoints").complete()]
    assert saved == (["step_00000003"] if every == 3 else []), "the sound one before is complete"
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_the_check_of_a_step_does_not_wait_for_the_device(
    context: DistributedContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = noted(context, {"loss": 1.0})
    for method in ("item", "tolist", "__bool__", "__float__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, method, lambda *_, method=method: pytest.fail(f"{method} waits"))
    check.note(2, {"loss": torch.tensor(math.nan)})


@pytest.mark.parametrize(
    ("accumulated", "step", "batches"),
    [
        (1, 12, [2]),  # noticed at the report after step 14, of the second epoch
        (3, 6, [4, 5, 6]),  # at the report after step 7
        (3, 7, [7, 8, 9]),
        (3, 8, [10]),  # at the end of the epoch, whose last step has one batch
    ],
)
def test_the_batches_that_diverged_are_saved_with_original_ids(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulated: int, step: int, batches: list[int]
) -> None:
    """The batches of the failed step are read again."""
    read: dict[tuple[int, int], Batch] = {}
    take, steps = EpochIterator.__next__, Trainer.steps

    def reading(self: EpochIterator) -> Batch:
        batch = take(self)
        read[self._epoch, self.yielded] = batch
        return batch

    def broken_loss(self: Trainer, batches):
        for output in steps(self, batches):
            if self.progress.step == step:
                self.losses.note(step, {name: value * math.nan for name, value in output.losses.items()})
            yield output

    monkeypatch.setattr(EpochIterator, "__next__", reading)
    monkeypatch.setattr(Trainer, "steps", broken_loss)
    settings = "trainer.log_every=7", f"trainer.accumulate_steps={accumulated}", REPLICATED
    good = -(-10 // accumulated)  # after the first epoch, of 10 batches
    with pytest.raises(TrainingError, match=rf"not finite at step {step} .*Last good checkpoint: .*step_{good:08d}"):
        train(small_run(prepared, tmp_path / "run", *settings))
    saved = pq.read_table(tmp_path / "run" / "not_finite" / f"step_{step:08d}" / "rank_0.parquet")
    trained = [read[1, number] for number in batches]
    assert saved["label"].to_pylist() == torch.cat([batch.labels for batch in trained]).tolist()
    for name, ids in (("user_id", trained[0].users), ("item_id", trained[0].items)):
        assert saved[name].to_pylist()[:20] == [[read_original_id(prepared, name, i)] for i in ids[:20].tolist()]
