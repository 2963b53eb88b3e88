"""Folders that all ranks write together, complete or absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from cove_dist.distributed import DistributedContext


@contextmanager
def replaced_folder(folder: Path, runtime: DistributedContext) -> Iterator[Path]:
    """A folder for every rank to write to, which takes the place of ``folder`` once all have. Collective.

    Until then, and after a failure, ``folder`` is what it was.
    """
    partial = folder.with_name(folder.name + ".partial")
    if runtime.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    dist.barrier()
    yield partial
    dist.barrier()
    if runtime.is_main:
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
