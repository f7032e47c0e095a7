"""Concurrent jobs."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

import anyio

from maintainer.errors import StoreError

_T = TypeVar("_T")
_R = TypeVar("_R")
_Name = TypeVar("_Name", bound=Hashable)

MAX_AT_ONCE = 8
"""Up to this many jobs are under way at once."""


async def for_each(
    job: Callable[[_T], Awaitable[_R]], items: Iterable[_T], *, at_once: int = MAX_AT_ONCE
) -> list[_R]:
    """Run a job for each item; return the results in the order of the items.

    The jobs begin in this order too: each runs up to where it first waits before the next begins.
    The first that raises an error cancels the others, and its error is raised.
    """
    results: dict[int, _R] = {}
    pending = enumerate(items)

    async def work() -> None:
        for position, item in pending:
            results[position] = await job(item)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(work)
    except BaseExceptionGroup as errors:
        raise _most_serious(errors) from None
    return [results[position] for position in range(len(results))]


def _most_serious(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one of several errors: those of the store have one cause, and others are bugs."""
    flat = list(_flatten(errors))
    return next((one for one in flat if not isinstance(one, StoreError)), flat[0])


def _flatten(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


class _Job(Generic[_R]):
    """A job under way, and how it has ended."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.results: list[_R] = []
        self.error: StoreError | None = None


class Joint(Generic[_Name, _R]):
    """Jobs with names, of which each runs only once at a time: who comes later joins it."""

    def __init__(self) -> None:
        self._jobs: dict[_Name, _Job[_R]] = {}

    def __contains__(self, name: _Name) -> bool:
        """Whether a job of this name is under way."""
        return name in self._jobs

    async def run(self, name: _Name, job: Callable[[], Awaitable[_R]]) -> _R:
        """Run a job, or wait for the one of its name that is under way; return its result.

        Its StoreError is raised to all who wait for it.
        """
        while (under_way := self._jobs.get(name)) is not None:
            await under_way.ended.wait()
            if under_way.error:
                raise under_way.error
            if under_way.results:
                return under_way.results[0]
        mine = self._jobs[name] = _Job()
        try:
            mine.results.append(await job())
        except StoreError as error:
            mine.error = error
            raise
        finally:
            del self._jobs[name]
            mine.ended.set()
        return mine.results[0]
