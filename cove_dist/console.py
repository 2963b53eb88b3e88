"""The one console of the process: log lines and the progress bar share it, so that neither overwrites the other."""

from __future__ import annotations

import sys

from rich.console import Console

LOG_WIDTH = 200  # of lines in a file, which has no width of its own

console = Console(stderr=True, width=None if sys.stderr.isatty() else LOG_WIDTH)
