"""Sequential models on 1, 2 and 4 real ranks: equal losses for every softmax, equal metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.distributed import process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.sequential.build import vocabulary_of
from cove_dist.training.build import build
from cove_dist.training.program import train
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.draws import Draws
from data_pipeline.streaming.loader import build_loader
from tests.component.sequential.runs import small_run
from tests.configurations import ROW_WISE
from tests.distributed.ranks import run_ranks

STEPS = 6
COVE = ("quantizer=cove_items", "quantizer.item_levels=[12,4]", "quantizer.omega_c=0.5")
LEARNING = (
    "trainer.optimizer.learning_rate=0.02",
    "embeddings.optimizer.learning_rate=0.05",
    "embeddings.init_std=0.3",
)


def part_of(batch: Batch, vocabulary: np.ndarray, rank: int, world_size: int) -> Batch:
    """This rank's lists of a global batch, and its vocabulary."""
    rows = torch.arange(len(batch)).tensor_split(world_size)[rank]
    stride = -(-len(batch) // world_size)
    keys, values, lengths = batch.ids.keys(), [], []
    for key in keys:
        lists = batch.ids[key].to_dense()
        own = [lists[row] for row in rows]
        values += own
        lengths += [len(ids) for ids in own] + [0] * (stride - len(own))
    values.append(torch.from_numpy(vocabulary))
    lengths += [len(vocabulary)] + [0] * (stride - 1)
    ids = KeyedJaggedTensor([*keys, "vocabulary"], torch.cat(values), lengths=torch.tensor(lengths), stride=stride)
    weight = torch.tensor(len(rows) * world_size / len(batch))
    return replace(batch, ids=ids, labels=batch.labels[rows], users=batch.users[rows], weight=weight)


def losses_on_the_same_batches(overrides: list[str]) -> list[float]:
    """The loss of each global batch; the batches are those of one rank's stream."""
    config, _ = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        train_state = build(config, schema, context, 64)
        pipeline = TrainPipelineSparseDist(train_state.model, train_state.optimizer, context.device)
        whole = list(build_loader(config.data.path, schema, "train", 31, shuffle=True))[:STEPS]
        transform = vocabulary_of(config, schema, context.rank, context.world_size)
        [(vocabulary, _)] = transform(Rows(np.empty((0, 1)), [], np.empty((1, 0)), np.ones(1)), Draws(0, 0, 0))
        parts = [part_of(batch, vocabulary, context.rank, context.world_size) for batch in whole]
        batches = iter(parts)
        losses = torch.tensor([pipeline.progress(batches).losses["loss"].item() for _ in parts])
        losses *= torch.tensor([len(part) / len(batch) for part, batch in zip(parts, whole, strict=True)])
        dist.all_reduce(losses)
        return losses.tolist()


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated-adam", "row-wise-adagrad"])
@pytest.mark.parametrize("quantizer", [(), (*COVE, "sequential.item_bias=true")], ids=["base", "cove-with-bias"])
@pytest.mark.parametrize("model", ["Recurrent", "Parallel"])
def test_one_two_and_four_ranks_have_the_same_losses(
    prepared_lists: Path, tables: tuple[str, ...], quantizer: tuple[str, ...], model: str
) -> None:
    overrides = small_run(prepared_lists, model, "unused", *LEARNING, *tables, *quantizer)
    one = run_ranks(1, losses_on_the_same_batches, overrides)[0]
    assert one[-1] < one[0]
    for world_size in (2, 4):
        for losses in run_ranks(world_size, losses_on_the_same_batches, overrides):
            assert losses == pytest.approx(one, rel=5e-5)
    full = run_ranks(2, losses_on_the_same_batches, [*overrides, "sequential.softmax=full"])[0]
    assert full == pytest.approx(one, rel=5e-5)


def training_losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


@pytest.mark.parametrize("model", ["Masked", "Parallel"])
def test_a_run_interrupted_within_an_epoch_continues_with_the_same_losses(
    prepared_lists: Path, tmp_path: Path, model: str
) -> None:
    """With what each step draws: masks and samples, of categories that were coded before the epoch, or the share that
    the curriculum shows."""
    curriculum = ["sequential.curriculum_steps=9"] if model == "Parallel" else []
    categories = ["negatives.category_share=0.5", "negatives.category_count=3"] if model == "Masked" else []
    drawn = ("sequential.softmax=sampled", "sequential.sampled=20", *curriculum, *categories)
    whole = small_run(prepared_lists, model, tmp_path / "whole", *ROW_WISE, *COVE, *drawn)
    run_ranks(2, train, whole)
    cut = small_run(prepared_lists, model, tmp_path / "cut", *ROW_WISE, *COVE, *drawn)
    run_ranks(2, train, [*cut, "trainer.max_steps=9"])
    run_ranks(2, train, [*cut, "trainer.checkpoint.resume=auto"])
    expected = training_losses(tmp_path / "whole")
    assert max(expected) > 9
    assert training_losses(tmp_path / "cut") == expected


def metrics_of_an_untrained_model(overrides: list[str]) -> dict[str, float]:
    config, _ = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        train_state = build(config, schema, context, 16)
        return task_of(config).build_evaluator(config, schema, "test", context, {})(train_state.model)


@pytest.mark.parametrize("model", ["OwnerAware", "Masked", "Parallel"])
def test_one_two_and_four_ranks_have_the_same_metrics(prepared_lists: Path, model: str) -> None:
    overrides = small_run(prepared_lists, model, "unused", *ROW_WISE, *COVE, "embeddings.init_std=0.5")
    one = run_ranks(1, metrics_of_an_untrained_model, overrides)[0]
    assert one["lists"] == Schema.load(prepared_lists).splits["test"].rows
    assert 0 < one["recall@5"] < 1
    for world_size in (2, 4):
        for metrics in run_ranks(world_size, metrics_of_an_untrained_model, overrides):
            assert metrics == pytest.approx(one, rel=1e-12)


def metrics_of_a_constant_model(overrides: list[str]) -> list[dict[str, float]]:
    """With batches of several sizes."""
    with process_group("cpu") as context:
        found = []
        for size in (8, 64):
            config, _ = load_run_config([*overrides, f"trainer.evaluation_batch_size={size}"])
            train_state = build(config, Schema.load(config.data.path), context, 16)
            evaluator = task_of(config).build_evaluator(config, Schema.load(config.data.path), "test", context, {})
            found.append(evaluator(train_state.model))
        return found


@pytest.mark.parametrize("model", ["Recurrent", "Parallel"])
def test_ties_are_listed_alike_on_all_ranks(prepared_lists: Path, model: str) -> None:
    overrides = small_run(prepared_lists, model, "unused", *ROW_WISE, "embeddings.init_std=1e-60")  # 0 in float32
    [one, *_] = run_ranks(1, metrics_of_a_constant_model, overrides)[0]
    for world_size in (1, 2, 4):
        for found in run_ranks(world_size, metrics_of_a_constant_model, overrides):
            assert found == [pytest.approx(one, rel=1e-12)] * 2


def evaluate_with_nan(overrides: list[str]) -> dict[str, float]:
    config, _ = load_run_config(overrides)
    with process_group("cpu") as context:
        train_state = build(config, Schema.load(config.data.path), context, 16)
        with torch.no_grad():
            next(train_state.model.module.objective.model.parameters()).fill_(float("nan"))
        evaluator = task_of(config).build_evaluator(config, Schema.load(config.data.path), "test", context, {})
        return evaluator(train_state.model)


def test_a_model_of_nan_is_refused(prepared_lists: Path) -> None:
    with pytest.raises(AssertionError, match=r"FloatingPointError: .* scores are not finite"):
        run_ranks(2, evaluate_with_nan, small_run(prepared_lists, "Recurrent", "unused"))
