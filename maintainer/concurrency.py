"""Concurrent jobs."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import anyio

from maintainer.errors import StoreError

_T = TypeVar("_T")
_R = TypeVar("_R")

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
