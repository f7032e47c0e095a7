"""Ctrl-C and SIGTERM: a run ends behind the request under way, and is remembered as interrupted."""

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from maintainer.budget import Budget
from maintainer.errors import MaintainerError

_T = TypeVar("_T")

_PATIENCE = 2.0
"""Seconds that the request under way has to end; then, or at a second signal, it is cut off."""
_SHELL = 128
"""What shells add to the number of a signal."""


@dataclass(frozen=True, slots=True)
class Ended(Generic[_T]):
    """How a job ended."""

    result: _T | None
    """None if it was cut off."""
    signal: signal.Signals | None

    @property
    def exit_status(self) -> int | None:
        """The exit status of a process that was interrupted; None if it was not."""
        return None if self.signal is None else _SHELL + self.signal


async def interruptible(job: Callable[[], Awaitable[_T]], budget: Budget) -> Ended[_T]:
    """Run a job whose steps ask `budget`, until it ends or a signal ends it.

    Raises the MaintainerError that the job raises.
    """
    received: list[signal.Signals] = []
    result: _T | None = None
    failure: MaintainerError | None = None
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:

            async def cut_off() -> None:
                await anyio.sleep(_PATIENCE)
                group.cancel_scope.cancel()

            async def listen() -> None:
                async for number in signals:
                    if received:
                        group.cancel_scope.cancel()
                    received.append(number)
                    budget.interrupt(number.name)
                    group.start_soon(cut_off)

            group.start_soon(listen)
            try:
                result = await job()
            except MaintainerError as error:
                failure = error
            group.cancel_scope.cancel()
    if failure:
        raise failure
    return Ended(result, received[0] if received else None)
