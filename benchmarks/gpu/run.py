"""What the program does on one GPU: right, and how near to the limit. Every section leaves results if it is cut short.

    python benchmarks/gpu/run.py --out results/gpu --seconds 330
    python benchmarks/gpu/run.py --out DIR --resume results/gpu/results.json     # what is missing or failed
    python benchmarks/gpu/run.py --out DIR --dry-run                             # everything, tiny, on CPU

Sections run one after the other, the most valuable first, each in its own process, which is started while the section
before it runs. A section that crashes is started again after the case that ended it; one that takes more than its share
of the time left is ended, and its last case counts as failed. After every case ``results.json`` and ``summary.md`` are
rewritten. The exit status is 0 if all sections are complete and no check failed; otherwise 1, and the last lines say
what is missing.

Correctness: checks of quantizers, models, training steps, programs, and ``tests/gpu``. Speed: see the modules.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]  # these modules, benchmarks/, the packages

from results import JSON, PAGE, Results  # noqa: E402

KINDS = ("ctr", "histories", "cf", "sequential")  # data sets, made by one process each
SECTIONS = {  # seconds that the first look takes; what is not used by one is left to those after it
    "check_quantizer": 45,  # compiles the kernels
    "check_models": 35,
    "speed_training": 75,
    "speed_quantizer": 45,  # compiles them for larger sizes
    "check_steps": 30,
    "check_programs": 45,
    "speed_tables": 40,
    "check_tests": 30,
    "speed_recommenders": 30,
    "speed_input": 15,
}
FATAL = 3  # exit status of a process whose device can no longer be used
GRACE = 2.0  # seconds that a section has to end by itself
AGAIN = 10.0  # seconds that must be left for a section to be started again


@dataclass(frozen=True)
class Settings:
    out: Path
    work: Path
    dry_run: bool


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    started = time.monotonic()
    deadline = started + given.seconds
    settings = Settings(given.out.resolve(), given.work or Path(tempfile.mkdtemp(prefix="cove_gpu_")), given.dry_run)
    for folder in (settings.out, settings.work):
        folder.mkdir(parents=True, exist_ok=True)
    results = Results(settings.out, given.resume)
    results.content["machine"] = machine(settings.dry_run)
    results.save()
    done = {name: results.settled(name) for name in SECTIONS} if given.resume else {}
    Runner(settings, results, done).run([name for name in SECTIONS if name in given.only], deadline)
    failures = results.failures()
    print((settings.out / PAGE).read_text())
    print("\n".join(failures) or "every section is complete and every check passed", flush=True)
    return 1 if failures else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json, summary.md and log.txt")
    parser.add_argument("--seconds", type=float, default=330, help="in all")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="results.json of an earlier call")
    parser.add_argument("--work", type=Path, metavar="DIR", help="data and runs; default: a new temporary folder")
    parser.add_argument("--dry-run", action="store_true", help="everything at tiny sizes on CPU")
    return parser.parse_args(arguments)


def machine(dry_run: bool) -> dict[str, Any]:
    """Describe the machine, without using the device in this process."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    gpu = "none (dry run)"
    if not dry_run:
        gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    versions = {name: find_version(name) for name in ("torch", "torchrec", "triton")}
    return {"gpu": gpu, "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def find_version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


class Runner:
    """Runs sections in processes.

    Args:
        settings: Settings of the call.
        results: Where rows are recorded.
        done: Cases by section that an earlier call has settled.
    """

    def __init__(self, settings: Settings, results: Results, done: dict[str, list[str]]) -> None:
        self._settings, self._results, self._done = settings, results, done
        # A forked process shares what is imported; CUDA cannot be used in one.
        self._processes = multiprocessing.get_context("fork" if settings.dry_run else "spawn")
        if settings.dry_run:
            os.environ["TRITON_INTERPRET"] = "1"
            importlib.import_module("cove_dist.training.trainer")

    def run(self, names: Sequence[str], deadline: float) -> None:
        makers = [self._start(make_data, kind, self._settings) for kind in KINDS]
        standby = {names[0]: self._prepare(names[0])} if names else {}
        for position, name in enumerate(names):
            child = standby.pop(name)
            for following in names[position + 1 : position + 2]:
                standby[following] = self._prepare(following)
            left = deadline - time.monotonic()
            share = SECTIONS[name] / sum(SECTIONS[each] for each in names[position:])
            if self._settings.dry_run:  # the shares are those of a GPU
                share = 1.0
            print(f"{name}: {max(0.0, left) * share:.0f} s of {max(0.0, left):.0f} s", flush=True)
            self._run_section(name, child, max(1.0, left * share))
        for maker in makers:
            end(maker)

    def _run_section(self, name: str, child: Any, seconds: float) -> None:
        start, skipped = time.monotonic(), list(self._done.get(name, []))
        deadline = start + seconds
        while True:
            process, channel = child
            channel.send((deadline, skipped))  # of the machine's clock: the process may still be importing
            process.join(deadline - time.monotonic() + GRACE)
            hung = process.is_alive()
            end(process)
            self._results.load()  # what the process wrote
            status = "ended at its time limit" if hung else STATUS.get(process.exitcode, "crashed")
            record, left = self._results.section(name), deadline - time.monotonic()
            in_a_case = record["started"] is not None or process.exitcode == FATAL  # or there is no progress
            self._results.close(name, status, time.monotonic() - start)
            if hung or status != "crashed" or not in_a_case or left <= AGAIN:
                return
            start, skipped = time.monotonic(), list(record["rows"])
            child = self._prepare(name)

    def _prepare(self, name: str) -> Any:
        """Start the process of a section, which imports and then waits to be told its time."""
        ours, theirs = self._processes.Pipe()
        return self._start(run_cases, name, self._settings, theirs), ours

    def _start(self, target: Any, *arguments: Any) -> Any:
        process = self._processes.Process(target=in_session, args=(self._settings, target, arguments))
        process.start()
        return process


STATUS = {0: "complete", 1: "failed to start", 4: "cut short"}


def in_session(settings: Settings, target: Any, arguments: tuple[Any, ...]) -> None:
    """Call in a new session, so that all its processes can be ended, with the output appended to the log."""
    os.setsid()
    descriptor = os.open(settings.out / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = os.fdopen(descriptor, "a", buffering=1)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout = sys.stderr = log
    target(*arguments)


def make_data(kind: str, settings: Settings) -> None:
    import inputs

    inputs.make(kind, settings.work, settings.dry_run)


def run_cases(name: str, settings: Settings, channel: Any) -> None:
    """Run the cases of a section that are not skipped until its time is over; the exit status says how it ended."""
    module = importlib.import_module(name)  # imports torch and TorchRec, which take seconds
    import torch
    from clock import Bench

    deadline, skipped = channel.recv()
    torch.set_num_threads(1 if settings.dry_run else 8)
    bench = Bench(torch.device("cpu" if settings.dry_run else "cuda"), settings.dry_run, settings.work)
    results = Results(settings.out)
    for case, measure in module.cases(bench):
        if case in skipped:
            continue
        if time.monotonic() > deadline:
            os._exit(4)
        results.start(name, case)
        try:
            row = measure()
        except Exception as error:
            traceback.print_exc()
            row = {"error": f"{type(error).__name__}: {error}"[:300]}
        results.add(name, case, row)
        if "error" in row and not usable(bench.device):
            os._exit(FATAL)
    sys.stdout.flush()
    os._exit(0)  # at once: what is left, such as a process group, needs no orderly end


def usable(device: Any) -> bool:
    """Return whether a torch device still works after an error."""
    import torch

    with suppress(Exception):
        return float(torch.ones(1, device=device).sum()) == 1
    return False


def end(process: Any) -> None:
    """End a process of this program with all processes that it started; those of torchrun have their own sessions."""
    for pid in family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()  # if it has no group yet
    process.join()


def family(leader: int) -> list[int]:
    """Return the processes of a process group and all their descendants, from Linux's ``/proc``."""
    parents, found = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            state, parent, group, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(parent)
            if int(group) == leader and state != "Z":
                found.append(int(entry.name))
    for pid in found:  # which grows
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found


if __name__ == "__main__":
    print(f"results: {JSON}, {PAGE}, log.txt")
    sys.exit(main())
