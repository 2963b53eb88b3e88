"""Training on 1, 2 and 4 real ranks."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from cove_dist.distributed import process_group
from cove_dist.errors import ConfigError, TrainingError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.build import build
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks

STEPS = 8
NO_DROPOUT = "model.dropout=0"


def part_of(batch: Batch, rank: int, world_size: int) -> Batch:
    """This rank's rows of a global batch."""
    rows = torch.arange(len(batch)).tensor_split(world_size)[rank]
    keys = batch.ids.keys()
    columns = batch.ids.values().view(len(keys), -1)[:, rows]
    lengths = torch.zeros(len(keys), -(-len(batch) // world_size), dtype=torch.int64)
    lengths[:, : len(rows)] = 1
    ids = type(batch.ids).from_lengths_sync(keys, columns.flatten(), lengths.flatten())
    weight = torch.tensor(len(rows) * world_size / len(batch))
    return Batch(ids, batch.dense[rows], batch.labels[rows], batch.users[rows], batch.items[rows], weight)


def losses_on_the_same_batches(overrides: list[str]) -> list[float]:
    """The loss of each global batch; the batches are those of one rank's stream."""
    config, _ = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        train_state = build(config, schema, context, 64)
        pipeline = TrainPipelineSparseDist(train_state.model, train_state.optimizer, context.device)
        whole = list(build_loader(config.data.path, schema, "train", 251))[:STEPS]  # 251: ranks get unequal parts
        batches = iter([part_of(batch, context.rank, context.world_size) for batch in whole])
        weights = [len(part_of(batch, context.rank, context.world_size)) / len(batch) for batch in whole]
        losses = torch.tensor([pipeline.progress(batches).losses["loss"].item() * weight for weight in weights])
        dist.all_reduce(losses)
        return losses.tolist()


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated-adam", "row-wise-adagrad"])
@pytest.mark.parametrize("quantizer", [(), COVE], ids=["base", "cove"])
def test_one_two_and_four_ranks_have_the_same_losses(
    prepared: Path, tables: tuple[str, ...], quantizer: tuple[str, ...]
) -> None:
    learning = ("trainer.optimizer.learning_rate=0.02", "embeddings.optimizer.learning_rate=0.05")
    overrides = small_run(prepared, "unused", NO_DROPOUT, "embeddings.init_std=0.3", *learning, *tables, *quantizer)
    one = run_ranks(1, losses_on_the_same_batches, overrides)[0]
    assert one[-1] < one[0]
    for world_size in (2, 4):
        for losses in run_ranks(world_size, losses_on_the_same_batches, overrides):
            assert losses == pytest.approx(one, rel=2e-5)


def test_whole_runs_on_one_two_and_four_ranks_have_the_same_losses(prepared: Path, tmp_path: Path) -> None:
    """Each by its own stream, shuffled in blocks smaller than a rank's rows, with and without threads."""
    learning = ("trainer.optimizer.learning_rate=0.02", "trainer.shuffle_buffer=300", "trainer.epochs=1", *ROW_WISE)
    losses = {}
    for world_size, workers in ((1, 0), (2, 3), (4, 1)):
        folder = tmp_path / str(world_size)
        overrides = small_run(prepared, folder, NO_DROPOUT, *learning, *COVE, f"trainer.workers={workers}")
        run_ranks(world_size, train, overrides)
        losses[world_size] = training_losses(folder)
    assert len(losses[1]) == 10
    for world_size in (2, 4):
        assert losses[world_size] == pytest.approx(losses[1], rel=5e-5)


def train_and_count(overrides: list[str]) -> tuple[int, int]:
    """Rows this rank trained, and its steps."""
    rows = []
    after_step = TrainingLoop.after_step

    def counting(self: TrainingLoop, output, batches) -> None:
        rows.append(output.rows)
        after_step(self, output, batches)

    TrainingLoop.after_step = counting
    train(overrides)
    return sum(rows), len(rows)


@pytest.mark.parametrize("world_size", [2, 4])
def test_uneven_data_leaves_no_rank_behind(prepared: Path, tmp_path: Path, world_size: int) -> None:
    """A row count that neither ranks nor batches divide: equal steps, every row once, no hang."""
    rows = Schema.load(prepared).splits["train"].rows
    assert rows % world_size or rows % 236
    counts = run_ranks(
        world_size, train_and_count, small_run(prepared, tmp_path / "run", "trainer.batch_size=236", "trainer.epochs=1")
    )
    assert sum(count for count, _ in counts) == rows
    assert len({steps for _, steps in counts}) == 1


def train_until(overrides: list[str], step: int) -> None:
    """Train, and die without a word after a step, as a lost machine does."""
    after_step = TrainingLoop.after_step

    def dying(self: TrainingLoop, output, batches) -> None:
        after_step(self, output, batches)
        if self.progress.step == step:
            self.writer.wait()  # the last save is complete; the next one never begins
            os._exit(1)

    TrainingLoop.after_step = dying
    train(overrides)


def training_losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated-adam", "row-wise-adagrad"])
def test_resumed_losses_equal_those_of_an_uninterrupted_run_exactly(
    prepared: Path, tmp_path: Path, tables: tuple[str, ...]
) -> None:
    """Killed in the middle of the second epoch, with dropout and shuffling on, and resumed."""
    saving = (
        "trainer.checkpoint.every_steps=4",
        "trainer.warmup_steps=9",
        "trainer.schedule.name=cosine",
        *tables,
        *COVE,
    )
    run_ranks(2, train, small_run(prepared, tmp_path / "whole", *saving))
    whole = training_losses(tmp_path / "whole")
    killed = small_run(prepared, tmp_path / "killed", *saving)
    with pytest.raises(AssertionError, match="died"):
        run_ranks(2, train_until, killed, 14)
    run_ranks(2, train, [*killed, "trainer.checkpoint.resume=auto"])
    resumed = training_losses(tmp_path / "killed")
    assert max(whole) == 20
    assert resumed == whole


def test_a_finished_run_resumes_to_nothing(prepared: Path, tmp_path: Path) -> None:
    overrides = small_run(prepared, tmp_path / "run", "trainer.epochs=1")
    run_ranks(2, train, overrides)
    before = (tmp_path / "run" / "log.jsonl").read_text()
    run_ranks(2, train, [*overrides, "trainer.checkpoint.resume=auto"])
    assert (tmp_path / "run" / "log.jsonl").read_text() == before


def train_with_a_fault(overrides: list[str], step: int, rank: int, where: str) -> str:
    """Train with a loss, or a weight after the update, that one rank sees as nan at a step; what it raises."""
    after_step, steps = TrainingLoop.after_step, Trainer.steps

    def broken_loss(self: Trainer, batches):
        for output in steps(self, batches):
            if (self.progress.step, self.context.rank) == (step, rank):
                self.losses.note(step, {name: value * math.nan for name, value in output.losses.items()})
            yield output

    def broken_weight(self: TrainingLoop, output, batches) -> None:
        if (self.progress.step, self.trainer.context.rank) == (step, rank):
            with torch.no_grad():
                next(self.trainer.train_state.model.module.objective.parameters()).view(-1)[0] = math.nan
        after_step(self, output, batches)

    if where == "loss":
        Trainer.steps = broken_loss
    else:
        TrainingLoop.after_step = broken_weight
    try:
        train(overrides)
    except TrainingError as error:
        return str(error)
    return "trained"


@pytest.mark.parametrize(
    ("where", "message"), [("loss", "loss not finite at step 4"), ("weight", "not finite after step 4 on rank 1")]
)
def test_all_ranks_stop_together_when_one_diverges_and_save_nothing_more(
    prepared: Path, tmp_path: Path, where: str, message: str
) -> None:
    intervals = ("trainer.log_every=1000", "trainer.checkpoint.every_steps=2", "trainer.check_replicas_every=1000")
    said = run_ranks(2, train_with_a_fault, small_run(prepared, tmp_path / "run", *intervals), 4, 1, where)
    for rank, text in enumerate(said):
        assert message in text
        saved = tmp_path / "run" / "not_finite" / "step_00000004" / f"rank_{rank}.parquet"
        assert f"The batch of step 4 on rank {rank}: " in text
        assert "user_id " in text
        assert f"saved in {saved}. Last good checkpoint: {tmp_path}/run/checkpoints/step_00000002" in text
        assert f" {pq.read_table(saved).num_rows} rows (" in text
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000002"]
    assert not (tmp_path / "run" / "summary.json").exists()


def resume_with(overrides: list[str]) -> str:
    try:
        train(overrides)
    except ConfigError as error:
        return str(error)
    return "trained"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_stopped_by_max_steps_continues_with_the_same_losses_and_a_refusal_changes_nothing(
    prepared: Path, tmp_path: Path
) -> None:
    given = (*COVE, *ROW_WISE, "trainer.early_stopping.patience=2")
    run_ranks(2, train, small_run(prepared, tmp_path / "whole", *given))
    stopped = small_run(prepared, tmp_path / "parts", *given, "trainer.max_steps=13")
    run_ranks(2, train, stopped)
    before = files_of(tmp_path / "parts")
    resume = [*stopped, "trainer.checkpoint.resume=auto"]
    for text in run_ranks(2, resume_with, [*resume, "seed=1"]):
        assert "seed: 0 there, 1 here" in text
    assert files_of(tmp_path / "parts") == before
    run_ranks(2, train, [*resume, "trainer.max_steps=null"])
    assert training_losses(tmp_path / "parts") == training_losses(tmp_path / "whole")


def train_with_a_nan_loss(overrides: list[str], rank: int, number: int) -> None:
    """Train; in one forward pass the loss of one rank is nan."""
    build, passes = Trainer.__init__, 0

    def fault(_: torch.nn.Module, __: object, result: tuple) -> tuple:
        nonlocal passes
        passes += 1
        return (result[0] * math.nan if passes == number else result[0]), result[1]

    def faulty(self: Trainer, *arguments: object) -> None:
        build(self, *arguments)
        if self.context.rank == rank:
            self.train_state.model.register_forward_hook(fault)

    Trainer.__init__ = faulty
    train(overrides)


def test_a_step_that_one_rank_cannot_take_is_skipped_by_all(prepared: Path, tmp_path: Path) -> None:
    given = ("trainer.on_nan=skip", "trainer.max_steps=9", "trainer.check_replicas_every=1", *COVE, *ROW_WISE)
    run_ranks(2, train_with_a_nan_loss, small_run(prepared, tmp_path / "run", *given), 1, 4)
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    trained = {record["step"]: record for record in records if record["kind"] == "train"}
    assert [step for step, record in trained.items() if record.get("skipped_steps")] == [4]
    assert all(math.isfinite(record["loss"]) for step, record in trained.items() if step != 4)
    assert len(trained) == 9
