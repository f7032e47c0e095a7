"""Serves the pages, on loopback unless the configuration names another address."""

import errno
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address

from maintainer.clock import now_utc
from maintainer.errors import AddressBusyError, UsageError
from maintainer.graph.database import Database
from maintainer.serve.web.app import Pages
from maintainer.serve.web.guard import Guard
from maintainer.settings import ServeSettings, split_listen
from maintainer.webserver import listen, serving, url_of

_MAX_CONNECTIONS = 64
_REQUEST_TIMEOUT = 15.0
"""Seconds for a whole request."""

_TEMPORARY = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""Errors that may resolve automatically: another process ends, a network comes up."""

log = logging.getLogger(__name__)


class PageServer:
    """The pages at their address.

    Raises AddressBusyError if the address is not available now, UsageError if it is invalid.
    """

    def __init__(
        self,
        settings: ServeSettings,
        database: Database,
        is_alive: Callable[[], bool],
        trouble: Callable[[], Mapping[str, str]],
        refused: Callable[[], str],
    ) -> None:
        host, port = split_listen(settings.listen)
        pages = Pages(database, is_alive, now_utc, trouble, refused)
        self._guard = Guard(pages.app(), host=host, hosts=settings.hosts)
        try:
            self._socket = listen(host, port)
        except OSError as error:
            kind = AddressBusyError if error.errno in _TEMPORARY else UsageError
            raise kind(f"cannot listen on {settings.listen}: {error.strerror}") from None
        if not ip_address(host).is_loopback:
            log.warning("anyone who can reach %s can read the reports: it is not loopback", host)

    @property
    def url(self) -> str:
        """The address of the index page."""
        return f"{url_of(self._socket)}/"

    def reload(self, settings: ServeSettings) -> None:
        """Apply the settings that can change while it serves."""
        self._guard.hosts = frozenset(name.lower() for name in settings.hosts)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the pages as long as the context lasts."""
        with serving(
            self._guard,
            self._socket,
            patience=_REQUEST_TIMEOUT,
            max_connections=_MAX_CONNECTIONS,
            always={"/healthz"},  # Who restarts what seems dead would end runs.
        ):
            log.info("serving %s", self.url)
            yield

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
