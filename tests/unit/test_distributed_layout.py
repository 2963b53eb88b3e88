"""One module calls torch.distributed, and divides values among the ranks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import cove_dist
from cove_dist.distributed import Collectives, batches_of_block

PACKAGE = Path(cove_dist.__file__).parent
ALLOWED = {
    "distributed.py": {"torch.distributed"},
    "torch_compat.py": {"torch.distributed", "torch.distributed._shard.sharded_tensor", "torch.distributed.optim"},
    # The library that reads and writes the files of a checkpoint.
    "checkpoints/io.py": {
        "torch.distributed.checkpoint",
        "torch.distributed.checkpoint.staging",
        "torch.distributed.checkpoint.stateful",
    },
    "checkpoints/storage.py": {
        f"torch.distributed.checkpoint{name}" for name in ("", ".filesystem", ".metadata", ".planner")
    },
    "checkpoints/stored_rows.py": {"torch.distributed.checkpoint.metadata"},
}


def imported(source: str) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module in ("torch", "cove_dist"))


def test_only_one_module_and_the_adapter_call_torch_distributed() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        modules = {name for name in imported(path.read_text()) if name.startswith("torch.distributed")}
        if modules:
            found[path.relative_to(PACKAGE).as_posix()] = modules
    assert found == ALLOWED


def test_ranks_share_values_in_as_many_batches_each() -> None:
    class Rank(Collectives):
        def __init__(self, rank: int) -> None:
            super().__init__()
            self.rank, self.size = rank, 3

    batches = [list(batches_of_block(np.arange(10), 3, Rank(rank))) for rank in range(3)]
    assert [[batch.tolist() for batch in each] for each in batches] == [
        [[0, 1, 2], [3]],
        [[4, 5, 6], [7]],
        [[8, 9], []],
    ]
