"""Concurrent calls that are done together: what all of them must check is checked once."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(slots=True)
class _Call(Generic[_T, _R]):
    item: _T
    result: _R | Exception | None = None
    is_done: bool = False


class Batches(Generic[_T, _R]):
    """Does what waits while one batch is done as the next one."""

    def __init__(self, work: Callable[[Sequence[_T]], Awaitable[Sequence[_R | Exception]]]) -> None:
        """Begin; `work` returns a result for each item, or the error to raise for it."""
        self._work = work
        self._waiting: list[_Call[_T, _R]] = []
        self._lock = anyio.Lock()

    async def add(self, item: _T) -> _R:
        """Do something together with all that waits; return its own result, or raise its error."""
        call = _Call[_T, _R](item)
        self._waiting.append(call)
        async with self._lock:
            if not call.is_done:
                await self._do_all()
        if isinstance(call.result, Exception):
            raise call.result
        if call.result is None:
            raise AssertionError("unreachable: each call has a result")
        return call.result

    async def _do_all(self) -> None:
        batch, self._waiting = self._waiting, []
        results = await self._work([one.item for one in batch])
        for one, result in zip(batch, results, strict=True):
            one.result, one.is_done = result, True
