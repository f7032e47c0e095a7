"""Serves an ASGI application by uvicorn, on a separate thread.

uvicorn handles signals only on the main thread, so here it ignores them. `Connection` and
`_serve_until` are the only places that use more of uvicorn than its documentation promises;
`tests/integration/test_webserver.py` fails if that changes.
"""

import asyncio
import math
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

TRANSPORT: Final = "transport"
"""The key of the connection's transport in the state of a request's scope."""
_BACKLOG = 128
_NOTICE = 0.01
"""Seconds for the server to notice that clients have closed their connections."""
_SHUTDOWN_TIMEOUT = 1
"""Seconds for active requests to finish once the server stops."""


class Connection(H11Protocol):
    """One connection, whose transport the application finds in the state of each scope.

    It is closed if it starts no request for `patience` seconds, so that it cannot block others
    permanently. A response may take at least as long, and at most twice as long.
    """

    def __init__(self, *, patience: float, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(**options)
        self._patience = patience

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, TRANSPORT: transport}
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self._patience, self._check, self.cycle)

    def _check(self, last: RequestResponseCycle | None) -> None:
        if self.cycle is last:
            self.transport.abort()
        else:
            self._wait()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 chooses a free port. Raises OSError."""
    # The protocol must be given: asyncio disables delays only for sockets declared as TCP.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket, without a path."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def serving(
    app: ASGIApp,
    listening: socket.socket,
    *,
    patience: float = math.inf,
    max_connections: int | None = None,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve `app` as long as the context lasts, then close the socket; yield the server's loop.

    Connections beyond `max_connections` are refused, and those without a request are closed after
    `patience` seconds.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=cast("type[asyncio.Protocol]", partial(Connection, patience=patience)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=max_connections,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
    )
    started = Future[asyncio.AbstractEventLoop]()
    stopped = asyncio.Event()

    async def serve() -> None:
        started.set_result(asyncio.get_running_loop())
        await _serve_until(stopped, uvicorn.Server(config), listening)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="web server", daemon=True)
    thread.start()
    loop = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        listening.close()


async def _serve_until(
    stopped: asyncio.Event, server: uvicorn.Server, listening: socket.socket
) -> None:
    running = asyncio.create_task(server.serve(sockets=[listening]))
    await stopped.wait()
    await asyncio.sleep(_NOTICE)
    if server.server_state.connections:
        server.should_exit = True
    else:
        # uvicorn takes 0.2 s to stop, and tests serve hundreds of caches.
        running.cancel()
    with suppress(asyncio.CancelledError):
        await running
