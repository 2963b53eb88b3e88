"""Run the launch programs as a user does, but by a Python that has imported everything (`tests.fork_server`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cove_dist.evaluation.metrics_files import load_metrics
from tests.fork_server import executable

ROOT = Path(__file__).resolve().parents[2]


def launch(
    program: str, *arguments: str, ranks: int | None = None, seconds: float = 240
) -> subprocess.CompletedProcess[str]:
    """``python launch/<program>.py …``, or under torchrun with this number of ranks."""
    script = [str(ROOT / "launch" / f"{program}.py"), *arguments]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command = [executable(), *(torchrun if ranks else []), *script]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def succeed(program: str, *arguments: str, ranks: int | None = None) -> str:
    """The standard output of a program that must succeed."""
    done = launch(program, *arguments, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics_of(run: Path, split: str = "test", kind: str = "best") -> dict[str, float | None]:
    """The metrics that an evaluation wrote."""
    return load_metrics(run, split, kind).metrics
