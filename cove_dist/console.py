"""The console of the process, shared by log lines and the progress bar, so that neither overwrites the other."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from functools import cache
from pathlib import PurePath

from rich.console import Console
from rich.logging import RichHandler

LOG_WIDTH = 200  # width of lines in a file
_CHATTY = ("torchrec", "fbgemm_gpu")
_MESSAGES = (".*autograd kernel was not registered.*", "torch.distributed is disabled, unavailable or uninitialized")

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
    warnings.filterwarnings("ignore", message=_MESSAGES[0])


@cache
def quiet_imported_libraries() -> None:
    """Silence what torchrec, fbgemm_gpu and torch say of their own code in every run, once, in a process of the user's.

    Unlike `quiet_libraries`, this leaves the user's handlers, the level of the root logger and other warnings as they
    are, and levels that the user has set.
    """
    for name in (*_CHATTY, "torch.fx._symbolic_trace"):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger().addFilter(_is_not_of_torchrec)
    warnings.filterwarnings("ignore", module="|".join(_CHATTY))
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message)


def _is_not_of_torchrec(record: logging.LogRecord) -> bool:
    """Return whether a record of the root logger is an error, or of another package: torchrec logs there, too."""
    return record.levelno >= logging.ERROR or not {*_CHATTY} & {*PurePath(record.pathname).parts}


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 step`` and ``2 steps``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
