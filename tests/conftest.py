"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from data_pipeline.datasets.playlists import Playlists
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.preparation.prepare import prepare
from tests.composing import remember_compositions
from tests.databases import share_duckdb
from tests.unit.data.playlist_files import raw_playlists, write_release

if not torch.cuda.is_available():  # before anything imports Triton: without a GPU, its interpreter runs the kernels
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_finish() -> None:
    """Leave the half million objects of the imports out of later garbage collections: else a third of a second each."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # extension modules take for leaks what is there at the very end


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def shared_work() -> Iterator[None]:
    """Do once per process what programs do once: read the shipped YAML files, and open DuckDB."""
    with pytest.MonkeyPatch.context() as patch:
        remember_compositions(patch)
        share_duckdb(patch)
        yield


@pytest.fixture(autouse=True)
def closed_process_group() -> Iterator[None]:
    """Close a process group that a test leaves open."""
    shared = dist.is_initialized()  # by a fixture of the module
    yield
    if dist.is_initialized() and not shared:
        gc.collect()
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 3,001 rows (no multiple of anything) of 60 users and 80 items."""
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    prepare(Synthetic(users=60, items=80, rows=3001, user_tree=(6, 2), item_tree=(8, 2)), folder, name="synthetic")
    return folder


@pytest.fixture(scope="session")
def prepared_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of lists of 5 to 16 items."""
    folder = tmp_path_factory.mktemp("lists")
    source = write_release(folder / "raw", raw_playlists())
    rules = {"min_length": 5, "max_length": 16, "min_occurrences": 10}
    prepare(Playlists(source=str(source), file="AotM", **rules), folder / "prepared", name="lists")
    return folder / "prepared"
