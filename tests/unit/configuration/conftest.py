"""Programs that are called in this process do not end it."""

from __future__ import annotations

import pytest

from cove_dist import cli
from tests.unit.configuration.calling import Ended


@pytest.fixture(autouse=True)
def no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(cli.os, "_exit", end)
