"""Signals: the only place that handles them, for every command.

Python runs a handler between two instructions of the main thread, even while that holds a lock,
and not before something else wakes the main thread up if the signal comes when it is just about to
wait. So handlers do nothing, once a command has started: the interpreter writes each signal to a
socket at once, in whatever thread it comes, and ordinary threads act on it.
https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue

STOP = (signal.SIGINT, signal.SIGTERM)
RELOAD = signal.SIGHUP
_SHELL = 128
"""Shells add this to the number of a signal."""
_FIRST = 1
"""The number of the first process of a container."""
_NOBODY = -1
"""Where the interpreter writes signals by default."""

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


def end_first_process() -> None:
    """Let SIGTERM end the first process of a container, too, until `received` receives it.

    By default the kernel keeps it from that process, and whoever stops the container waits.
    """
    if os.getpid() == _FIRST:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: object) -> None:
    sys.exit(_SHELL + number)


@contextmanager
def received(*numbers: signal.Signals) -> Iterator[Queue]:
    """Put the signals into a queue as they come. Only the main thread may call this."""
    queue = Queue()
    ours, interpreters = socket.socketpair()
    interpreters.setblocking(False)
    outer = signal.set_wakeup_fd(interpreters.fileno(), warn_on_full_buffer=False)
    arguments = (ours, numbers, queue, outer)
    thread = threading.Thread(target=_receive, args=arguments, name="receive", daemon=True)
    thread.start()
    before = {number: signal.signal(number, _ignore) for number in numbers}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield queue
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        signal.set_wakeup_fd(outer)
        interpreters.close()
        thread.join()


def _ignore(number: int, frame: object) -> None:
    """Do nothing: `_receive` reads the signal."""


def _receive(
    ours: socket.socket, numbers: Collection[signal.Signals], queue: Queue, outer: int
) -> None:
    """Pass on what the interpreter writes; what is not ours goes to whoever receives around us."""
    with closing(ours):
        while byte := ours.recv(1):
            if (number := byte[0]) in numbers:
                queue.put(signal.Signals(number))
            elif outer != _NOBODY:
                os.write(outer, byte)


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
