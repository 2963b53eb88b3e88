"""The end of a process, without freeing what it imported."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End the process as Python does, but leave its memory to the system.

    It waits for threads that are no daemons and calls the functions registered with `atexit`. Python would then free
    every module and object, for which a program that imported torch and torchrec needs 2 s of CPU.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_observed() -> bool:
    """Return whether a profiler or debugger watches this process, which may have work to do at its end."""
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12
    tools = [] if monitoring is None else [monitoring.get_tool(number) for number in range(6)]
    return any((sys.getprofile(), sys.gettrace(), *tools))
