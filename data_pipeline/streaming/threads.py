"""Run tasks in order: in the calling thread when a result is requested, or ahead in other threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Task(Protocol[Result_co]):
    """Submitted work."""

    def result(self) -> Result_co:
        """Wait for the result; raise the exception of the work."""
        ...


class Pool(Protocol):
    """Runs submitted work. Work may wait for work submitted earlier, never for later work."""

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Task[Result]: ...

    def shutdown(self) -> None:
        """Drop the work that has not begun, and wait for the rest."""
        ...


class LazyTask(Generic[Result]):
    """Work that runs when its result is first requested."""

    def __init__(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> None:
        self._work: Callable[[], Result] | None = lambda: function(*arguments)
        self._result: Result

    def result(self) -> Result:
        if self._work is not None:
            self._result = self._work()
            self._work = None  # frees the arguments
        return self._result


class CallingThread:
    """A `Pool` without threads."""

    def submit(self, function: Callable[..., Result], *arguments: Any) -> LazyTask[Result]:
        return LazyTask(function, arguments)

    def shutdown(self) -> None:
        """Do nothing: no work is in progress between calls."""


class Threads:
    """A `Pool` of threads that take work in the order in which it was submitted.

    No thread remains after `shutdown`, or when the interpreter exits without it.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="data")

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Task[Result]:
        return self._executor.submit(function, *arguments)

    def shutdown(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def in_order(tasks: Iterable[Task[Result]], ahead: int) -> Iterator[Result]:
    """Yield the results of tasks, which are submitted up to ``ahead`` results before they are requested."""
    pending: deque[Task[Result]] = deque()
    for task in tasks:
        pending.append(task)
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
