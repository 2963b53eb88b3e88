"""Folders that all ranks write together, complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from cove_dist import distributed
from cove_dist.distributed import DistributedContext, world
from data_pipeline import folders


@contextmanager
def replaced_folder(folder: Path, context: DistributedContext) -> Iterator[Path]:
    """Yield a folder for all ranks to write to, and rename it to ``folder`` when all ranks have written. Collective.

    After an error ``folder`` is unchanged.

    Raises:
        OutputError: The folder cannot be created, or the disk is full.
    """
    with folders.replaced_folder(folder) if context.is_main else nullcontext() as partial:
        yield Path(world().gather_objects(str(partial))[0])
        distributed.barrier()
