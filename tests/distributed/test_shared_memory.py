"""Gradients and updates of tables by gloo ranks, with and without shared memory, against float64 on dense tables."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torchrec.distributed.composable.table_batched_embedding_slice import TableBatchedEmbeddingSlice

from cove_dist import shared_memory
from cove_dist.cli import LOST_PEER
from cove_dist.distributed import barrier, process_group, world
from cove_dist.embeddings.kept_gradient import LookUpWithKeptGradient
from cove_dist.embeddings.sparse_optimizers import LookUpRows, SparseOptimizer
from tests.distributed.ranks import run_ranks

CASES = 25


class Tables(NamedTuple):
    """Two tables of one parameter, and their values in float64 after steps by the mean gradient of all ranks."""

    whole: nn.Parameter
    tables: list[TableBatchedEmbeddingSlice]
    expected: torch.Tensor
    counts: torch.Tensor


class Descent(SparseOptimizer):
    """Subtracts the gradient, and counts the updates of every row."""

    def new_state(self, table: nn.Parameter) -> dict[str, Any]:
        return {"step": torch.tensor(0.0), "count": torch.zeros(len(table), dtype=torch.int32)}

    def update(self, table: nn.Parameter, ids: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        table.data[ids] -= gradient
        self.state[table]["count"][ids] += 1


def random_tables(generator: torch.Generator) -> tuple[Tables, int]:
    """Return tables of 2 to 60 rows of 1 to 8 columns, and the number of columns."""
    rows, dim = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((2, 61), (1, 9)))
    cut = int(torch.randint(1, rows, (), generator=generator)) * dim
    whole = nn.Parameter(torch.randn(rows * dim, generator=generator))
    slices = [TableBatchedEmbeddingSlice(whole, *ends, -1, dim) for ends in ((0, cut), (cut, rows * dim))]
    expected = whole.detach().double().view(rows, dim).clone()
    return Tables(whole, slices, expected, torch.zeros(rows, dtype=torch.int32)), dim


def random_batches(generator: torch.Generator, rows: int, dim: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return for every rank 0 to 40 ids, which repeat, and their gradients."""
    sizes = torch.randint(0, 41, (world().size,), generator=generator).tolist()
    return [
        (torch.randint(rows, (size,), generator=generator), torch.randn(size, dim, generator=generator))
        for size in sizes
    ]


def step_sparsely(seed: int) -> bytes:
    """Take three steps; return the bits of the tables."""
    generator = torch.Generator().manual_seed(seed)
    (whole, tables, expected, counts), dim = random_tables(generator)
    optimizer, rows = Descent(tables, {"lr": 1.0}, None), len(expected)
    for _ in range(3):
        of_ranks = random_batches(generator, rows, dim)
        optimizer.zero_grad()
        ids, gradients = of_ranks[world().rank]
        for part in (slice(0, 7), slice(7, None)):  # two look-ups of one step
            (LookUpRows.apply(whole, ids[part], dim) * gradients[part]).sum().backward()
        optimizer.step()
        for each, gradient in of_ranks:
            expected.index_add_(0, each, gradient.double() / -world().size)
        counts[torch.cat([each for each, _ in of_ranks]).unique()] += 1
        torch.testing.assert_close(torch.cat(list(tables)).detach().double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(torch.cat([optimizer.state[table]["count"] for table in tables]), counts)
    return torch.cat(list(tables)).detach().numpy().tobytes()


def average_densely(seed: int) -> bytes:
    """Average gradients, of two backward passes in the second step; return their bits."""
    generator = torch.Generator().manual_seed(seed)
    (whole, _, start, _), dim = random_tables(generator)
    for passes in (1, 2, 1):
        whole.grad, expected = None, torch.zeros_like(start)
        for _ in range(passes):
            of_ranks = random_batches(generator, len(start), dim)
            ids, gradients = of_ranks[world().rank]
            looked_up = [LookUpWithKeptGradient.apply(whole, part, dim) for part in (ids[:7], ids[7:])]
            (torch.cat(looked_up) * gradients).sum().backward()
            for each, gradient in of_ranks:
                expected.index_add_(0, each, gradient.double() / world().size)
        assert whole.grad is not None
        torch.testing.assert_close(whole.grad.view(-1, dim).double(), expected, rtol=0, atol=1e-5)
    assert whole.grad is not None
    return whole.grad.numpy().tobytes()


def run_cases(on_one_host: bool) -> tuple[bool, list[bytes]]:
    """Whether memory was shared, and the results of all cases."""
    with process_group("cpu") as context:
        elsewhere = not on_one_host and context.rank == context.world_size - 1
        with patch.object(shared_memory, "_open", lambda *_: None) if elsewhere else nullcontext():
            shared = shared_memory.HostRanks.open() is not None
            results = [function(seed) for function in (step_sparsely, average_densely) for seed in range(CASES)]
        return shared, results


@pytest.mark.parametrize(("world_size", "on_one_host"), [(1, True), (2, True), (3, True), (2, False)])
def test_ranks_average_and_update_every_row_once(world_size: int, on_one_host: bool) -> None:
    """If one rank cannot open the memory, as on another host, all exchange by gloo."""
    shared, results = zip(*run_ranks(world_size, run_cases, on_one_host), strict=True)
    assert set(shared) == {on_one_host and world_size > 1}
    assert all(each == results[0] for each in results)


def open_memory() -> set[str]:
    """Return the pipes and anonymous files that this process has open."""
    links = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.add(str(file.readlink()))
    return {link for link in links if link.startswith(("pipe:", "/memfd:"))}


def open_without() -> list[tuple[bool, set[str]]]:
    """Let each rank in turn be denied the memory, and the pipes, of the others.

    Returns:
        Of each case: whether the ranks are connected, and the pipes and files left open.
    """
    found = []
    with process_group("cpu") as context:
        for denied in (os.O_RDWR, os.O_WRONLY):  # the memory, the pipes
            for rank in range(context.world_size):
                before = open_memory()
                with patch.object(os, "open", opening_but(denied)) if context.rank == rank else nullcontext():
                    connected = shared_memory.HostRanks.open() is not None
                found.append((connected, open_memory() - before))
    return found


def opening_but(denied: int) -> Callable[..., int]:
    """Return `os.open` that refuses to open with some flags."""

    def open_file(path: str, flags: int, *mode: int) -> int:
        if flags == denied:
            raise PermissionError("denied")
        return really_open(path, flags, *mode)

    really_open = os.open
    return open_file


def test_all_ranks_do_without_if_one_may_not_open_the_files_of_another() -> None:
    assert run_ranks(2, open_without) == [[(False, set())] * 4] * 2


def write_own_row() -> tuple[np.ndarray, list[bool]]:
    """What a rank sees in a shared tensor after all have written a row; whether it maps the memory then and later."""
    with process_group("cpu"):
        host = shared_memory.HostRanks.open()
        assert host is not None
        shared = host.shared((host.size, 5), torch.int32)
        for _ in range(200):
            shared[host.rank] += host.rank + 1
            host.barrier()
            assert shared.equal(shared[0, 0] * torch.arange(1, host.size + 1, dtype=torch.int32)[:, None].expand(-1, 5))
            host.barrier()
        found, mapped = shared.numpy().copy(), [maps_memory()]
        del shared
        return found, [*mapped, maps_memory()]


def maps_memory() -> bool:
    return "memfd:cove_dist" in Path("/proc/self/maps").read_text()


def test_shared_memory_is_seen_by_all_ranks_after_a_barrier_and_released_with_its_tensor() -> None:
    for found, mapped in run_ranks(3, write_own_row):
        np.testing.assert_array_equal(found, np.repeat([[200], [400], [600]], 5, axis=1))
        assert mapped == [True, False]


def wait_in_vain(ends: bool) -> str:
    """What rank 0 is told at a barrier that rank 1 does not enter."""
    seconds = timedelta(seconds=60 if ends else 0.05)
    with process_group("cpu") as context:
        host, told = shared_memory.HostRanks.open(), ""
        assert host is not None
        if context.rank == 0:
            with patch.object(shared_memory, "timeout", lambda: seconds), pytest.raises(RuntimeError) as error:
                host.barrier()
            told = str(error.value)
        elif ends:
            del host
        barrier()
        return told


@pytest.mark.parametrize(("ends", "message"), [(False, "timed out after"), (True, "ended")])
def test_a_barrier_names_the_fault_of_another_rank(ends: bool, message: str) -> None:
    told, _ = run_ranks(2, wait_in_vain, ends)
    assert message in told
    assert bool(LOST_PEER.search(told)) == ends, "a command says that another rank was lost"
