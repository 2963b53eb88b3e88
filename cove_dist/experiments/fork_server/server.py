"""Import modules, then fork a process for every client: ``server.py FOLDER DESCRIPTOR MODULE…``.

The descriptor is a listening socket. The server removes the folder at its end.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cove_dist.process_exit import end_process

Request = dict[str, Any]
ALLOCATOR = "jemalloc_bg_thd"  # of pyarrow; started again after a fork


@dataclass
class Served:
    """A process that was forked for a client."""

    client: socket.socket
    process: int
    ended: int  # a descriptor that can be read when the process has ended


class Server:
    """Forks processes until standard input ends, which it does when the process that started the server ends."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._selector.register(0, selectors.EVENT_READ, None)
        self._served: list[Served] = []

    def serve(self) -> Request | None:
        """Serve clients.

        Returns:
            In a forked process, its request; None in the server, at its end.
        """
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == 0:
                    self._kill_all()
                    return None
                if key.fileobj is self._listener:
                    request = self._accept()
                    if request is not None:
                        return request
                elif key.data in self._served:
                    self._attend(key.data, key.fileobj)

    def _accept(self) -> Request | None:
        client, _ = self._listener.accept()
        header, streams, _, _ = socket.recv_fds(client, 8, 3)
        text = client.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
        process = os.fork()
        if process == 0:
            self._leave(client)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return json.loads(text)
        for stream in streams:
            os.close(stream)
        served = Served(client, process, os.pidfd_open(process))
        self._served.append(served)
        for watched in (served.ended, client):
            self._selector.register(watched, selectors.EVENT_READ, served)
        with suppress(OSError):  # of a client that was killed meanwhile, which `_attend` sees
            client.sendall(process.to_bytes(8, "big", signed=True))
        return None

    def _attend(self, served: Served, watched: Any) -> None:
        if watched is served.client:  # the client was killed
            os.kill(served.process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(served.process, 0)[1])
        for each in (served.ended, served.client):
            self._selector.unregister(each)
        with suppress(OSError):
            served.client.sendall(code.to_bytes(8, "big", signed=True))
        served.client.close()
        os.close(served.ended)
        self._served.remove(served)

    def _kill_all(self) -> None:
        for served in self._served:
            os.kill(served.process, signal.SIGKILL)

    def _leave(self, client: socket.socket) -> None:
        """Close what belongs to the server, in a forked process."""
        self._selector.close()
        for each in (self._listener, client, *(served.client for served in self._served)):
            each.close()
        for served in self._served:
            os.close(served.ended)


def run(request: Request) -> None:
    """Run a request as ``python`` does."""
    import torch

    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.orig_argv = [sys.executable, *request["arguments"]]  # as an ordinary process would have it
    sys.executable = request["executable"]
    head, *rest = [argument for argument in request["arguments"] if argument != "-u"]
    added = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = [*added, *sys.path[1:]]
    if head in ("-m", "-c"):
        what, *rest = rest
        sys.path, sys.argv = [os.getcwd(), *path], [head, *rest]
        if head == "-m":
            sys.modules.pop(what, None)  # else runpy warns
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
    elif head.startswith("-"):
        sys.exit(f"{head}: no option of the Python that forks programs; allowed: -c, -m, -u")
    else:
        sys.path, sys.argv = [os.path.dirname(os.path.abspath(head)), *path], [head, *rest]
        runpy.run_path(head, run_name="__main__")


def run_and_end(request: Request) -> NoReturn:
    """Run a request and end the process with the exit code that Python has."""
    code = 0
    try:
        run(request)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    end_process(code)


def threads() -> set[str]:
    """Return the names of the threads of this process, those of libraries included."""
    main = str(os.getpid())
    tasks = (path for path in Path("/proc/self/task").iterdir() if path.name != main)
    return {(path / "comm").read_text().strip() for path in tasks}


def main(folder: str, descriptor: str, *modules: str) -> None:
    """Serve clients; in a forked process, run its request."""
    for module in modules:
        importlib.import_module(module)
    if (provenance := sys.modules.get("cove_dist.training.provenance")) is not None:
        provenance.package_repository()  # forked processes run this code, whatever is checked out meanwhile
    if lost := threads() - {ALLOCATOR}:
        sys.exit(f"a fork would lose the threads {', '.join(sorted(lost))} of imported libraries")
    gc.collect()
    gc.freeze()
    with suppress(BrokenPipeError):  # the process that started this one was killed
        os.write(1, b"ready\n")
    request = Server(socket.socket(fileno=int(descriptor))).serve()
    if request is not None:
        run_and_end(request)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
