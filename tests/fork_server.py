"""A Python for the programs of tests that has imported all of them: see `cove_dist.experiments.fork_server`."""

from __future__ import annotations

from pathlib import Path

from cove_dist.experiments import fork_server

COMMANDS = Path(fork_server.__file__).resolve().parents[2] / "commands"
MODULES = (
    "torch.distributed.run", "torch.utils.tensorboard", "cove_dist.training.program",
    *(f"cove_dist.commands.{path.stem}" for path in sorted(COMMANDS.glob("[a-z]*.py"))),
)  # fmt: skip


def executable() -> str:
    """Return the path of a program that takes the arguments of ``python``: a script, ``-m module`` or ``-c code``."""
    return fork_server.executable(MODULES)
