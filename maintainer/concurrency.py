"""Concurrent jobs."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

import anyio

from maintainer.errors import StoreError

_T = TypeVar("_T")
_R = TypeVar("_R")
_Name = TypeVar("_Name", bound=Hashable)

MAX_CONCURRENT = 8
"""The most jobs that run concurrently."""


async def for_each(
    job: Callable[[_T], Awaitable[_R]], items: Iterable[_T], *, limit: int = MAX_CONCURRENT
) -> list[_R]:
    """Run a job for each item, up to `limit` of them concurrently; return the results in order.

    The jobs also start in order: each runs until its first wait before the next one starts. The
    first error cancels the other jobs, and is raised.
    """
    results: dict[int, _R] = {}
    pending = enumerate(items)

    async def work() -> None:
        for position, item in pending:
            results[position] = await job(item)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(limit):
                group.start_soon(work)
    except BaseExceptionGroup as errors:
        raise _most_serious(errors) from None
    return [results[position] for position in range(len(results))]


def _most_serious(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one of several errors: a bug, if there is one; errors of a store have one cause."""
    flat = list(_flatten(errors))
    return next((one for one in flat if not isinstance(one, StoreError)), flat[0])


def _flatten(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


class _Job(Generic[_R]):
    """A running job, and its result."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.results: list[_R] = []
        self.error: StoreError | None = None


class Joint(Generic[_Name, _R]):
    """Named jobs. A job is not started while one of its name runs: callers share its result."""

    def __init__(self) -> None:
        self._jobs: dict[_Name, _Job[_R]] = {}

    def __contains__(self, name: _Name) -> bool:
        """Whether a job of this name is running."""
        return name in self._jobs

    async def run(self, name: _Name, job: Callable[[], Awaitable[_R]]) -> _R:
        """Run a job, or wait for the running one of its name; return its result.

        All who wait for it get its StoreError.
        """
        while (running := self._jobs.get(name)) is not None:
            await running.ended.wait()
            if running.error:
                raise running.error
            if running.results:
                return running.results[0]
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
