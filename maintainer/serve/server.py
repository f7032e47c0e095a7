"""Serves the pages, on loopback unless somebody wants it otherwise."""

import errno
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address

from maintainer.collect import now_utc
from maintainer.errors import AddressBusyError, UsageError
from maintainer.graph.database import Database
from maintainer.scheduler import Schedule
from maintainer.serve.app import Pages
from maintainer.serve.guard import Guard
from maintainer.settings import ServeSettings, split_listen
from maintainer.webserver import listen, serving, url_of

_MAX_CONNECTIONS = 64
_REQUEST_TIMEOUT = 15.0
"""Seconds for a whole request."""

_PASSING = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""What may go away by itself: another process ends, a network comes up."""

log = logging.getLogger(__name__)


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
        try:
            self._socket = listen(host, port)
        except OSError as error:
            kind = AddressBusyError if error.errno in _PASSING else UsageError
            raise kind(f"cannot listen on {settings.listen}: {error.strerror}") from None
        if not ip_address(host).is_loopback:
            log.warning("whoever reaches %s can read the reports: it is not loopback", host)

    @property
    def url(self) -> str:
        """The address of the index page."""
        return f"{url_of(self._socket)}/"

    def take_over(self, settings: ServeSettings) -> None:
        """Take over what can be changed while it serves."""
        self._guard.hosts = frozenset(name.lower() for name in settings.hosts)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the pages as long as the context lasts."""
        with serving(
            self._guard, self._socket, patience=_REQUEST_TIMEOUT, max_connections=_MAX_CONNECTIONS
        ):
            log.info("serving %s", self.url)
            yield

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
