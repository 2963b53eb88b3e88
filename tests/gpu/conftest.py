"""Tests that need a GPU; without one they are skipped. ``benchmarks/gpu/run.py`` runs them as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cove_dist.distributed import DistributedContext, process_group
from cove_dist.training.program import train
from tests.configurations import COVE, small_run
from tests.interactions import SMALL_RUN, prepare_small

HERE = Path(__file__).parent
LEVELS = ("quantizer=cove_items", "quantizer.item_levels=[12,4]")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def one_rank() -> Iterator[DistributedContext]:
    """The process group of one rank with its GPU."""
    with process_group("cuda") as context:
        yield context


@pytest.fixture(scope="session")
def data(prepared: Path, prepared_lists: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A prepared folder for every task."""
    return {
        "ctr": prepared,
        "cf": prepare_small(tmp_path_factory.mktemp("cf")),
        "sequential": prepared_lists,
    }


def overrides(task: str, data: dict[str, Path], output: Path, device: str) -> list[str]:
    """A small run of every task with COVE."""
    if task == "ctr":
        words = small_run(data["ctr"], output, *COVE)
    elif task == "cf":
        words = [*SMALL_RUN, f"data.path={data['cf']}", f"output={output}", "model=lightgcn", *COVE]
    else:
        words = ["data=aotm", f"data.path={data['sequential']}", f"output={output}", "model=sasrec", *LEVELS]
        words += ["embeddings.dim=16", "trainer.epochs=2", "trainer.batch_size=32", "trainer.log_every=5"]
        words += ["trainer.warmup_steps=0", "trainer.evaluation_batch_size=16"]
    return [word for word in words if not word.startswith("trainer.device=")] + [f"trainer.device={device}"]


@pytest.fixture(scope="session", params=["ctr", "cf", "sequential"])
def run(request: pytest.FixtureRequest, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each task, trained on the GPU."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    train(overrides(request.param, data, folder, "cuda"))
    return folder
