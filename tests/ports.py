"""Ports for servers that cannot be asked which one they have chosen."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

_FIRST, _LAST = 10_000, 22_767
"""Below those that the system gives to whoever asks for any, and so are those 10,000 above: it gave
some away before a server, which takes a second to start, listened there."""


@cache
def _candidates() -> Iterator[int]:
    """Begin somewhere else in each process: they look for ports at the same time."""
    count = _LAST - _FIRST
    return (_FIRST + (os.getpid() * 97 + number) % count for number in range(count))


def free_port(*above: int) -> int:
    """Return a port of loopback that nobody has, nor those that are so far above it."""
    for port in _candidates():
        with suppress(OSError):
            for one in (port, *(port + more for more in above)):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", one))
            return port
    raise AssertionError("there is no free port")
