"""Which runs an earlier attempt of this torchrun (``--max-restarts``) started."""

from __future__ import annotations

from pathlib import Path

from cove_dist.distributed import launch_store


def mark_begun(run: Path) -> None:
    """Record for later attempts of this torchrun that it started the run of a folder."""
    if (launch := launch_store()) is not None:
        launch.set(_key(run), "yes")


def was_begun(run: Path) -> bool:
    """Return whether an earlier attempt of this torchrun started the run of a folder; False without torchrun."""
    return (launch := launch_store()) is not None and launch.check([_key(run)])


def _key(run: Path) -> str:
    return f"cove_dist/begun/{run.resolve()}"
