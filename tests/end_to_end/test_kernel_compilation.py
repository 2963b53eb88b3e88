"""Triton's compiler accepts the kernels; without a GPU the unit tests run them by its interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_kernels_compile_for_hopper(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    program = [sys.executable, "-m", "tests.unit.quantization.compile_kernels"]
    subprocess.run(program, check=True, env=environment, cwd=ROOT)
