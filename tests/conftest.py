"""Fixtures of all tests.

What takes seconds to import is imported in the functions: pytest-xdist loads this file in a process that runs no test.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cove_dist.distributed import DistributedContext


def pytest_collectstart() -> None:
    """Choose the settings of libraries before a module of tests imports them."""
    _choose_settings()


@cache
def _choose_settings() -> None:
    gc.disable()  # for the imports, which leave no garbage
    import torch
    from hypothesis import settings

    if not torch.cuda.is_available():  # without a GPU, Triton's interpreter runs the kernels
        os.environ["TRITON_INTERPRET"] = "1"
    settings.register_profile("quick", max_examples=25, deadline=None)
    settings.register_profile("thorough", max_examples=500, deadline=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_finish() -> None:
    """Leave the half million objects of the imports out of later garbage collections: else a third of a second each."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # extension modules take for leaks what is there at the very end


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def shared_work() -> Iterator[None]:
    """Do once per process what programs do once: read the shipped YAML files, and open DuckDB."""
    from tests.composing import remember_compositions
    from tests.databases import share_duckdb

    with pytest.MonkeyPatch.context() as patch:
        remember_compositions(patch)
        share_duckdb(patch)
        yield


@pytest.fixture(autouse=True)
def closed_process_group() -> Iterator[None]:
    """Close a process group that a test leaves open."""
    import torch.distributed as dist

    shared = dist.is_initialized()  # by a fixture of the module
    yield
    if dist.is_initialized() and not shared:
        gc.collect()
        dist.destroy_process_group()


@pytest.fixture
def context() -> Iterator[DistributedContext]:
    """A process group of one rank on the CPU."""
    from cove_dist.distributed import process_group

    with process_group("cpu") as context:
        yield context


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 3,001 rows (no multiple of anything) of 60 users and 80 items."""
    from data_pipeline.datasets.synthetic import Synthetic
    from data_pipeline.preparation.prepare import prepare

    folder = tmp_path_factory.mktemp("data") / "synthetic"
    prepare(Synthetic(users=60, items=80, rows=3001, user_tree=(6, 2), item_tree=(8, 2)), folder, name="synthetic")
    return folder


@pytest.fixture(scope="session")
def interactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder of `tests.interactions`, whose raw files are next to it."""
    from tests.interactions import prepare_small

    return prepare_small(tmp_path_factory.mktemp("interactions"))


@pytest.fixture(scope="session")
def prepared_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of lists of 5 to 16 items."""
    from data_pipeline.datasets.playlists import Playlists
    from data_pipeline.preparation.prepare import prepare
    from tests.unit.data.playlist_files import raw_playlists, write_release

    folder = tmp_path_factory.mktemp("lists")
    source = write_release(folder / "raw", raw_playlists())
    rules = {"min_length": 5, "max_length": 16, "min_occurrences": 10}
    prepare(Playlists(source=str(source), file="AotM", **rules), folder / "prepared", name="lists")
    return folder / "prepared"
