"""Serves the pages, on loopback unless somebody wants it otherwise."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from maintainer.collect import now_utc
from maintainer.errors import AddressBusyError, UsageError
from maintainer.graph.database import Database
from maintainer.scheduler import Schedule
from maintainer.serve.app import Pages
from maintainer.serve.guard import Guard
from maintainer.settings import ServeSettings, split_listen

_AT_ONCE = 64
"""Connections, and requests under way; more are turned away."""

_PASSING = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""What may go away by itself: another process ends, a network comes up."""

log = logging.getLogger(__name__)


class ImpatientProtocol(H11Protocol):
    """Cuts a connection off that asks for nothing: else it keeps others out as long as it likes.

    An answer may take as long at least, and twice as long at the most.
    """

    patience: ClassVar[float] = 15.0
    """Seconds for a whole request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.patience, self._look, self.cycle)

    def _look(self, last: RequestResponseCycle | None) -> None:
        if self.cycle is last:
            self.transport.abort()
        else:
            self._wait()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the service."""
        yield


class PageServer:
    """The pages at their address.

    Raises AddressBusyError if it cannot be listened on now, UsageError if it never can.
    """

    def __init__(
        self,
        settings: ServeSettings,
        database: Database,
        schedule: Schedule,
        trouble: Callable[[], Mapping[str, str]],
    ) -> None:
        host, port = split_listen(settings.listen)
        pages = Pages(database, lambda: schedule.is_alive, now_utc, trouble)
        self._guard = Guard(pages.app(), host=host, hosts=settings.hosts)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(128)
        except OSError as error:
            self._socket.close()
            kind = AddressBusyError if error.errno in _PASSING else UsageError
            raise kind(f"cannot listen on {settings.listen}: {error.strerror}") from None
        if not ip_address(host).is_loopback:
            log.warning("whoever reaches %s can read the reports: it is not loopback", host)
        self._server = _Server(_config(self._guard))

    @property
    def url(self) -> str:
        """Where the pages are."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def take_over(self, settings: ServeSettings) -> None:
        """Take over what can be changed while it serves."""
        self._guard.hosts = frozenset(name.lower() for name in settings.hosts)

    async def serve(self) -> None:
        """Serve until it is told to stop."""
        log.info("serving %s", self.url)
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Let `serve` return, once the requests under way are answered."""
        self._server.should_exit = True

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


def _config(guard: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        guard,
        loop="asyncio",
        http=ImpatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=2,
    )
