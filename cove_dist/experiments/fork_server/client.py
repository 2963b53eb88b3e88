"""Stand for a process that the server forks: ``client.py FOLDER EXECUTABLE ARGUMENT…``; imports few modules."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(folder: str, executable: str, *arguments: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is a process to pass them on to
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{folder}/socket")
    request = {
        "executable": executable,
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    text = json.dumps(request).encode()
    socket.send_fds(server, [len(text).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(text)
    process = receive(server)

    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = receive(server)
    if code < 0:  # killed by a signal: so is this one
        if -code in PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def receive(server: socket.socket) -> int:
    """Return a number from the server."""
    try:
        answer = server.recv(8, socket.MSG_WAITALL)
    except ConnectionResetError:
        answer = b""
    if len(answer) < 8:
        sys.exit("error: the process that started this program has ended")
    return int.from_bytes(answer, "big", signed=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
