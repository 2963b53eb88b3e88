"""The console of the process, shared by log lines and the progress bar, so that neither overwrites the other."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from rich.console import Console
from rich.logging import RichHandler

LOG_WIDTH = 200  # width of lines in a file

console = Console(stderr=True, width=None if sys.stderr.isatty() else LOG_WIDTH)


def quiet_libraries() -> None:
    """Log messages of this project at INFO, and those of other libraries only if they are errors."""
    import torch

    handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", datefmt="[%X]", handlers=[handler], force=True)
    main = os.environ.get("RANK", "0") == "0"
    logging.getLogger("hydra").setLevel(logging.CRITICAL)  # it also raises what it logs
    for name in ("cove_dist", "data_pipeline"):
        logging.getLogger(name).setLevel(logging.INFO if main else logging.ERROR)
    torch._logging.set_logs(all=logging.ERROR)
    warnings.filterwarnings("ignore", module="torch|torchrec|fbgemm_gpu")
    warnings.filterwarnings("ignore", message=".*autograd kernel was not registered.*")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 step`` and ``2 steps``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
