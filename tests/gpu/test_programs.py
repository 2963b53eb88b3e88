"""Runs trained on a GPU: evaluated, queried, exported and resumed on it and on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import cove_dist
from cove_dist.distributed import DistributedContext
from cove_dist.inference.export import export_run
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import ROW_WISE
from tests.gpu.conftest import overrides


def test_both_devices_evaluate_a_checkpoint_alike(run: Path) -> None:
    there, here = (cove_dist.load(run, device=device).evaluate("test") for device in ("cuda", "cpu"))
    assert there == pytest.approx(here, abs=1e-4, nan_ok=True)


def test_both_devices_give_the_same_embeddings_and_codes(run: Path) -> None:
    there, here = (cove_dist.load(run, device=device) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(*(columns(each.embeddings("item")) for each in (there, here)), rtol=1e-4, atol=1e-6)
    assert there.codes("item").equals(here.codes("item"))


def columns(table) -> np.ndarray:
    return np.stack(table["embedding"].to_pylist())


def test_both_devices_recommend_the_same_scores(run: Path) -> None:
    there, here = (cove_dist.load(run, device=device) for device in ("cuda", "cpu"))
    if run.name == "sequential":
        asked = {"sequences": [here.session.items.original.to_pylist()[:3]]}
    else:
        asked = {"users": here.session.users.original.to_pylist()[:5]}
    there, here = (each.recommend(k=5, **asked) for each in (there, here))
    np.testing.assert_allclose(there["score"].to_numpy(), here["score"].to_numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        ["embeddings.optimizer.name=rowwise_adagrad", "embeddings.sharding.default=data_parallel"],
        ["embeddings.unseen=codes"],
        ["embeddings.optimizer.weight_decay=1e-4", "embeddings.optimizer.weight_decay_rows=looked_up"],
        ["trainer.gradient_clip_norm=1", "embeddings.sharding.default=data_parallel"],
    ],
    ids=lambda settings: settings[0].rpartition(".")[2],
)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_settings_of_tables_train_on_one_device_and_evaluate_on_both(
    device: str, settings: list[str], data: dict[str, Path], tmp_path: Path
) -> None:
    train([*overrides("ctr", data, tmp_path / "run", device), *settings])
    there, here = (cove_dist.load(tmp_path / "run", device=each).evaluate("test") for each in ("cuda", "cpu"))
    assert there == pytest.approx(here, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("task", ["ctr", "cf", "sequential"])
def test_a_run_goes_on_on_the_other_device(task: str, data: dict[str, Path], tmp_path: Path) -> None:
    """One epoch here and one there, in both orders: as two epochs on the CPU, with tables fused on both."""
    whole = tmp_path / "whole"
    train([*overrides(task, data, whole, "cpu"), *ROW_WISE])
    expected = [r["loss"] for r in read_records(whole / LOG_FILE) if "loss" in r][-1]
    for first, second in (("cuda", "cpu"), ("cpu", "cuda")):
        folder = tmp_path / f"{first}_{second}"
        train([*overrides(task, data, folder, first), *ROW_WISE, "trainer.epochs=1"])
        train([*overrides(task, data, folder, second), *ROW_WISE, "trainer.checkpoint.resume=auto"])
        found = [r["loss"] for r in read_records(folder / LOG_FILE) if "loss" in r][-1]
        assert found == pytest.approx(expected, rel=0.02)  # masks of dropout differ between devices


def test_codes_embeddings_and_the_model_are_exported_from_the_gpu(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    folders = export_run([f"run={copied}", "what=[codes,embeddings,model]", "device=cuda"])
    assert [any(folder.rglob("*.*")) for folder in folders] == [True, True, True]


def test_tables_and_parameters_are_on_the_gpu(one_rank: DistributedContext, data: dict[str, Path]) -> None:
    config, _ = load_run_config(overrides("ctr", data, Path("unused"), "cuda"))
    trainer = Trainer(config, Schema.load(config.data.path), one_rank)
    tensors = [*trainer.train_state.model.parameters(), *trainer.train_state.model.buffers()]
    assert {each.device.type for each in tensors} == {"cuda"}
    assert torch.cuda.memory_allocated() > 0
