"""Checkpoints on two real ranks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor

from cove_dist.checkpoints.files import CheckpointFolder, CheckpointMeta
from cove_dist.checkpoints.io import CheckpointWriter, load_weights, newest_sound
from cove_dist.checkpoints.manifest import MANIFEST, describe_file, write_manifest
from cove_dist.checkpoints.rank_state import encode
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.build import build, describe_model
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from tests.checkpoints import write_checkpoint
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks


def local_parts(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key: torch.cat([shard.tensor for shard in value.local_shards()]) if isinstance(value, ShardedTensor) else value
        for key, value in state.items()
    }


def save_then_change(overrides: list[str], folder: Path) -> bool:
    """Whether a checkpoint holds the weights of the moment it was asked for, although they change at once."""
    config, _ = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        train_state = build(config, schema, context, 64)
        model = describe_model(config, schema)
        writer = CheckpointWriter(CheckpointFolder(folder), context, 2, "auc")
        before = {key: value.clone() for key, value in local_parts(train_state.model.state_dict()).items()}
        writer.save(train_state.state_dict(), {}, CheckpointMeta(1, context.world_size, model, {}, {}, "data", None))
        for value in local_parts(train_state.model.state_dict()).values():
            value.zero_()
        for parameter in train_state.model.parameters():
            parameter.data.zero_()
        writer.close()
        load_weights(folder / "step_00000001", train_state.model, model)
        after = local_parts(train_state.model.state_dict())
        return all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated", "row-wise"])
def test_a_checkpoint_is_of_the_moment_it_was_asked_for(
    prepared: Path, tmp_path: Path, tables: tuple[str, ...]
) -> None:
    overrides = small_run(prepared, "unused", *tables, *COVE)
    assert run_ranks(2, save_then_change, overrides, tmp_path) == [True, True]


def die_while_saving(overrides: list[str]) -> None:
    """Rank 0 dies after the shards are written and before the checkpoint is complete."""

    def dying(self: CheckpointWriter, written, partial: Path, path: Path) -> None:
        written.result()
        if path.name > "step_00000003":
            os._exit(1)
        finish(self, written, partial, path)

    finish = CheckpointWriter._finish
    CheckpointWriter._finish = dying
    train(overrides)


def test_a_save_cut_short_is_absent_and_the_next_run_starts_before_it(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = small_run(prepared, run, "trainer.checkpoint.every_steps=3", "trainer.epochs=1")
    with pytest.raises(AssertionError, match="died"):
        run_ranks(2, die_while_saving, overrides)
    files = CheckpointFolder(run / "checkpoints")
    assert [path.name for path in files.complete()] == ["step_00000003"]
    assert list(files.folder.glob("*.partial"))
    run_ranks(2, train, [*overrides, "trainer.checkpoint.resume=auto"])
    assert not list(files.folder.glob("*.partial"))
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 11), 10]


def newest_sound_name(folder: Path) -> str:
    with process_group("cpu"):
        return newest_sound(CheckpointFolder(folder)).name


def test_ranks_agree_on_the_checkpoint_although_each_verifies_other_files(tmp_path: Path) -> None:
    """Of meta.json and rank_0.safetensors, rank 1 reads the second."""
    for step in (10, 20, 30):
        path = write_checkpoint(tmp_path, step)
        (path / "rank_0.safetensors").write_bytes(encode({"step": step}))
        write_manifest(path, {file.name: describe_file(file) for file in path.iterdir() if file.name != MANIFEST})
    shutil.copy(tmp_path / "step_00000010" / "rank_0.safetensors", tmp_path / "step_00000030")
    (tmp_path / "step_00000020" / "meta.json").write_text("{}")
    assert run_ranks(2, newest_sound_name, tmp_path) == ["step_00000010"] * 2


def fields_of_first_batch(overrides: list[str], checkpoint: Path) -> tuple[list[str], list[float]]:
    """The order of the looked-up columns, and the logits of all ranks' first batch, from a checkpoint."""
    config, _ = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        train_state = build(config, schema, context, 64)
        load_weights(checkpoint, train_state.model, describe_model(config, schema))
        train_state.model.eval()
        batch = next(iter(build_loader(config.data.path, schema, "test", 64)))
        with torch.no_grad():
            keys = train_state.model.module.tables(batch.ids).wait().keys()
            return keys, train_state.model(batch)[1].logits.tolist()


def test_another_plan_permutes_the_columns_and_changes_no_score(prepared: Path, tmp_path: Path) -> None:
    """`KeyedTensor.values()` has the plan's order: a head that sliced by position would score at chance."""
    overrides = small_run(prepared, tmp_path / "run", "embeddings.optimizer.name=rowwise_adagrad", *COVE)
    plans = {
        "row-wise": ["embeddings.sharding.default=row_wise"],
        "mixed": ["embeddings.sharding.default=table_wise", "+embeddings.sharding.user_id=row_wise"],
    }
    run_ranks(2, train, [*overrides, *plans["row-wise"]])
    checkpoint = CheckpointFolder(tmp_path / "run" / "checkpoints").newest()
    read = {name: run_ranks(2, fields_of_first_batch, [*overrides, *plan], checkpoint) for name, plan in plans.items()}
    (keys, scores), _ = read["row-wise"]
    (other_keys, other_scores), _ = read["mixed"]
    assert keys != other_keys
    assert sorted(keys) == sorted(other_keys)
    assert max(scores) - min(scores) > 1e-3
    assert other_scores == pytest.approx(scores, abs=1e-6)


def resume_elsewhere(overrides: list[str]) -> tuple[int, int]:
    """Where a trainer stands after it has opened a run folder."""
    config, _ = load_run_config(overrides)
    with process_group("cpu") as context:
        trainer = Trainer(config, Schema.load(config.data.path), context)
        trainer.resume(Path(config.output))
        return trainer.progress.step, trainer.progress.batches


def test_on_another_number_of_ranks_and_threads_the_current_epoch_goes_on(prepared: Path, tmp_path: Path) -> None:
    """The losses of every step are those of a run of one rank that was never interrupted."""
    learning = ("model.dropout=0", "trainer.shuffle_buffer=300", "trainer.epochs=1", *ROW_WISE)
    run_ranks(1, train, small_run(prepared, tmp_path / "whole", *learning))
    overrides = small_run(prepared, tmp_path / "run", *learning)
    run_ranks(2, train, [*overrides, "trainer.max_steps=4"])
    resumed = [*overrides, "trainer.checkpoint.resume=auto", "trainer.workers=2"]
    assert run_ranks(4, resume_elsewhere, [*resumed, "trainer.max_steps=7"]) == [(4, 4)] * 4
    run_ranks(4, train, [*resumed, "trainer.max_steps=7"])
    run_ranks(1, train, resumed)
    whole, moved = (training_losses(tmp_path / name) for name in ("whole", "run"))
    assert len(whole) == 10
    assert moved == pytest.approx(whole, rel=1e-4)


def training_losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


def test_the_runtime_knows_its_rank() -> None:
    assert [context.rank for context in run_ranks(2, runtime_of_this_rank)] == [0, 1]


def runtime_of_this_rank() -> DistributedContext:
    with process_group("cpu") as context:
        return context
