"""Signals: the only place that handles them, for every command.

A handler runs between any two instructions of the main thread, even while it holds a lock. So the
handler only puts the signal into a queue, and ordinary threads act on it.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue

STOP = (signal.SIGINT, signal.SIGTERM)
RELOAD = signal.SIGHUP
_SHELL = 128
"""Shells add this to the number of a signal."""

Queue = SimpleQueue[signal.Signals | None]


@dataclass(slots=True)
class Interrupted:
    """The signal that interrupts the command."""

    by: signal.Signals | None = None
    """None if there was no signal."""

    @property
    def exit_status(self) -> int | None:
        """The exit status of a process that was interrupted; None if it was not."""
        return None if self.by is None else _SHELL + self.by


def hold(number: signal.Signals) -> None:
    """Keep a signal until `received` receives it: by default it would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])


@contextmanager
def received(*numbers: signal.Signals) -> Iterator[Queue]:
    """Put the signals into a queue as they come. Only the main thread may call this."""
    queue = Queue()

    def receive(number: int, _: object) -> None:
        queue.put(signal.Signals(number))

    before = {number: signal.signal(number, receive) for number in numbers}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield queue
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def interruptible(
    interrupt: Callable[[str], object], cut_off: Callable[[], object], *, patience: float
) -> Iterator[Interrupted]:
    """Call `interrupt` with the name of the first SIGINT or SIGTERM, to end after the current step.

    Call `cut_off` if that takes longer than `patience` seconds, or at a second signal. A separate
    thread calls both.
    """
    interrupted = Interrupted()
    with received(*STOP) as queue:
        arguments = (queue, interrupted, interrupt, cut_off, patience)
        thread = threading.Thread(target=_listen, args=arguments, name="signals", daemon=True)
        thread.start()
        try:
            yield interrupted
        finally:
            queue.put(None)
            thread.join()


def _listen(
    queue: Queue,
    interrupted: Interrupted,
    interrupt: Callable[[str], object],
    cut_off: Callable[[], object],
    patience: float,
) -> None:
    interrupted.by = queue.get()
    if interrupted.by is None:
        return
    interrupt(interrupted.by.name)
    try:
        ended = queue.get(timeout=patience) is None
    except Empty:
        ended = False
    if not ended:
        cut_off()
