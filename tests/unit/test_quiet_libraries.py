"""What Python users see of the messages of libraries."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from cove_dist.console import quiet_imported_libraries

NAMED = ("torchrec", "fbgemm_gpu", "torch.fx._symbolic_trace")


@pytest.fixture
def fresh() -> Iterator[logging.Logger]:
    """The root logger; levels, filters and warnings are as before after the test."""
    root = logging.getLogger()
    levels, filters = {name: logging.getLogger(name).level for name in NAMED}, list(root.filters)
    for name in NAMED:
        logging.getLogger(name).setLevel(logging.NOTSET)
    with warnings.catch_warnings(record=True):
        yield root
    root.filters[:] = filters
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_named_libraries_are_silent_and_all_else_stays(fresh: logging.Logger) -> None:
    level, handlers, of_torch = fresh.level, list(fresh.handlers), logging.getLogger("torch").level
    quiet_imported_libraries.__wrapped__()
    assert (fresh.level, fresh.handlers) == (level, handlers)
    assert not logging.getLogger("torchrec.distributed.utils").isEnabledFor(logging.WARNING)
    assert logging.getLogger("torchrec.distributed.utils").isEnabledFor(logging.ERROR)
    assert logging.getLogger("torch").level == of_torch


def test_levels_of_the_user_stay(fresh: logging.Logger) -> None:
    logging.getLogger("torchrec").setLevel(logging.DEBUG)
    quiet_imported_libraries.__wrapped__()
    assert logging.getLogger("torchrec").level == logging.DEBUG


@pytest.mark.parametrize(
    ("path", "level", "shown"),
    [
        ("/env/site-packages/torchrec/distributed/embedding.py", logging.WARNING, False),
        ("/env/site-packages/torchrec/distributed/embedding.py", logging.ERROR, True),
        ("/home/me/my_torchrec/train.py", logging.WARNING, True),
    ],
)
def test_of_the_root_logger_only_warnings_of_torchrec_are_silent(
    path: str, level: int, shown: bool, fresh: logging.Logger
) -> None:
    quiet_imported_libraries.__wrapped__()
    record = logging.LogRecord("root", level, path, 1, "Sharding spec not found", None, None)
    assert bool(fresh.filter(record)) is shown


def test_warnings_of_the_user_stay(fresh: logging.Logger) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet_imported_libraries.__wrapped__()
        for module in ("torchrec.distributed.planner", "fbgemm_gpu.split", "torch.optim.lr_scheduler", "mine"):
            warnings.warn_explicit(f"of {module}", FutureWarning, f"{module}.py", 1, module)
    assert [str(each.message) for each in seen] == ["of torch.optim.lr_scheduler", "of mine"]
