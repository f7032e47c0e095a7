"""Serves an ASGI application by uvicorn, on a separate thread.

uvicorn handles signals only on the main thread, so here it ignores them. `Connection` and
`_serve_until` are the only places that use more of uvicorn than its documentation promises;
`tests/integration/test_webserver.py` fails if that changes.
"""

import asyncio
import math
import socket
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

TRANSPORT: Final = "transport"
"""The key of the connection's transport in the state of a request's scope."""
_BACKLOG = 128
"""So many connections wait to be accepted, and are accepted at once."""
_NOTICE = 0.01
"""Seconds for the server to notice that clients have closed their connections."""
_SHUTDOWN_TIMEOUT = 1
"""Seconds for active requests to finish once the server stops."""
_REFUSAL = PlainTextResponse("too many connections: try again\n", 503, {"Connection": "close"})


class Connection(H11Protocol):
    """One connection, whose transport the application finds in the state of each scope.

    It is closed if it starts no request for `patience` seconds, so that it cannot block others
    permanently. A response may take at least as long, and at most twice as long.

    If there are more than `most`, the oldest without a request is closed at once: each takes a file
    descriptor, of which the process needs some for its work. Of those with a request there may be
    twice as many, so that the application can refuse them.
    """

    def __init__(
        self,
        *,
        patience: float,
        most: float = math.inf,
        **options: Any,  # noqa: ANN401 - uvicorn's own
    ) -> None:
        super().__init__(**options)
        self._patience = patience
        self._most = most
        self._made_at = self.loop.time()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, and the client has all that was sent."""
        last = cast("RequestResponseCycle | None", self.cycle)
        is_sent = not self.transport.get_write_buffer_size()
        return is_sent and (last is None or last.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, TRANSPORT: transport}
        self._wait()
        self._make_room()

    def _make_room(self) -> None:
        others = cast("set[Connection]", self.connections) - {self}
        others = {one for one in others if not one.transport.is_closing()}
        if len(others) < self._most:
            return
        if idle := [one for one in others if one.is_idle]:
            min(idle, key=lambda one: one._made_at).transport.abort()  # noqa: SLF001 - one of us
        elif len(others) >= 2 * self._most:
            self.transport.abort()

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
    max_connections: float = math.inf,
    always: Collection[str] = (),
) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve `app` as long as the context lasts, then close the socket; yield the server's loop.

    Connections without a request are closed after `patience` seconds, or if there are more than
    `max_connections`. If so many requests are under way, others are refused, except those for the
    paths in `always`.
    """

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        is_full = len(server.server_state.connections) > max_connections
        refused = is_full and scope["path"] not in always
        await (_REFUSAL if refused else app)(scope, receive, send)

    protocol = partial(Connection, patience=patience, most=max_connections)
    config = uvicorn.Config(
        limited,
        loop="asyncio",
        http=cast("type[asyncio.Protocol]", protocol),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
    )
    server = uvicorn.Server(config)
    started = Future[asyncio.AbstractEventLoop]()
    stopped = asyncio.Event()

    async def serve() -> None:
        started.set_result(asyncio.get_running_loop())
        await _serve_until(stopped, server, listening)

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
