"""The end of a process of `cove`, next to that of an ordinary Python."""

from __future__ import annotations

import subprocess
import sys

ENDS = """
import atexit, sys, threading, time
from cove_dist.process_exit import end_process, is_observed

class Kept:
    def __del__(self):
        print("freed")

kept = Kept()
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
print("end", is_observed())
"""


def output(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout


def test_threads_and_registered_functions_end_and_memory_is_not_freed() -> None:
    assert output("-c", ENDS) == (0, "end False\nthread\nregistered\nfreed\n")
    assert output("-c", f"{ENDS}end_process(3)") == (3, "end False\nthread\nregistered\n")


def test_a_profiler_sees_the_end_of_a_command() -> None:
    code, text = output("-m", "cProfile", "-m", "cove_dist", "--version")
    assert code == 0
    assert "function calls" in text
