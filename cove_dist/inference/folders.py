"""Folders that all ranks write together, complete or absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cove_dist.distributed import DistributedContext, barrier
from data_pipeline.files import replace_folder


@contextmanager
def replaced_folder(folder: Path, context: DistributedContext) -> Iterator[Path]:
    """Yield a folder for all ranks to write to, and rename it to ``folder`` when all ranks have written. Collective.

    After an error ``folder`` is unchanged.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    if context.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    barrier()
    yield partial
    barrier()
    if context.is_main:
        replace_folder(partial, folder)
