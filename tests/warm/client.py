"""``python`` as others see it: a process that stands for one that the server forks. Imports the least possible."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(folder: str, executable: str, *arguments: str) -> None:
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
    process = receive(server, folder)

    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    code = receive(server, folder)
    if code < 0:  # killed by a signal: so is this one
        if -code in PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def receive(server: socket.socket, folder: str) -> int:
    """A number from the server."""
    try:
        answer = server.recv(8, socket.MSG_WAITALL)
    except ConnectionResetError:
        answer = b""
    if len(answer) < 8:
        with open(f"{folder}/log") as log:
            sys.exit(f"the server of warm processes is gone:\n{log.read()}")
    return int.from_bytes(answer, "big", signed=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
