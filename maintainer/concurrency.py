"""Concurrent jobs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from maintainer.errors import StoreError

_T = TypeVar("_T")
_R = TypeVar("_R")


async def for_each(job: Callable[[_T], Awaitable[_R]], items: Sequence[_T]) -> list[_R]:
    """Run a job for each item, concurrently; return the results in order."""
    results: dict[int, _R] = {}

    async def run(position: int, item: _T) -> None:
        results[position] = await job(item)

    try:
        async with anyio.create_task_group() as group:
            for position, item in enumerate(items):
                group.start_soon(run, position, item)
    except* StoreError as errors:
        raise _first(errors) from None
    return [results[position] for position in range(len(items))]


def _first(errors: BaseExceptionGroup[StoreError]) -> StoreError:
    """Return one of several errors: the others have the same cause."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
