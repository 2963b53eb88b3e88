"""Run a function on real gloo ranks, each a process, and gather what the ranks return."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# Ranks are forked from a server that has imported torch and TorchRec once.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torchrec", "cove_dist.training.program"])

Result = tuple[int, str | None, Any]


def run_ranks(world_size: int, function: Callable[..., Any], *arguments: Any, seconds: float = 120) -> list[Any]:
    """Call ``function(*arguments)`` on every rank, under the environment that torchrun would set.

    Returns:
        What the ranks returned, by rank.

    Raises:
        AssertionError: a rank raised or died, or was not done in time; with the rank's traceback.
    """
    results: multiprocessing.Queue[Result] = _context.Queue()
    port = _free_port()
    ranks = [
        _context.Process(target=_rank, args=(results, rank, world_size, port, function, arguments), daemon=True)
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    try:
        return _gather(results, ranks, seconds)
    finally:
        for process in ranks:
            process.kill()  # training saves and goes on for a few steps after SIGTERM
            process.join()


def _gather(results: multiprocessing.Queue[Result], ranks: list[Any], seconds: float) -> list[Any]:
    returned: dict[int, Any] = {}
    waited = 0.0
    while len(returned) < len(ranks):
        try:
            rank, error, value = results.get(timeout=0.5)
        except queue.Empty:
            waited += 0.5
            dead = [i for i, process in enumerate(ranks) if process.exitcode not in (None, 0) and i not in returned]
            assert not dead, f"ranks {dead} died with exit codes {[ranks[i].exitcode for i in dead]}"
            assert waited < seconds, f"ranks {sorted(set(range(len(ranks))) - set(returned))} not done in {seconds} s"
            continue
        assert error is None, f"rank {rank}:\n{error}"
        returned[rank] = value
    return [returned[rank] for rank in range(len(ranks))]


def _rank(results: Any, rank: int, world_size: int, port: int, function: Callable[..., Any], arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        results.put((rank, None, function(*arguments)))
    except BaseException:
        results.put((rank, traceback.format_exc(), None))


def _free_port() -> int:
    """Return a port below those that the system gives to connections, which might take it before rank 0 listens."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
