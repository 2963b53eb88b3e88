"""Programs called in this process: what ends the process is an exception."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cove_dist import cli

Main = Callable[[list[str]], None]


def command(name: str) -> Main:
    return lambda arguments: cli.main([name, *arguments])


class Ended(Exception):
    """Takes the place of the end of the process."""


def error_of(main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one message that a program ends with."""
    with pytest.raises(Ended, match="2"):
        main(arguments)
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    return printed.err.removeprefix("error: ").rstrip("\n")
