"""Runs the emulator: on a thread of its own, or until it is told to stop."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import uvicorn
from starlette.types import ASGIApp

from maintainer.emulator.app import make_app
from maintainer.emulator.faults import NO_FAULTS, FaultPlan
from maintainer.emulator.injection import Faults, Protocol
from maintainer.emulator.requests import Observer
from maintainer.emulator.site import Site
from maintainer.emulator.state import ActionsCache
from maintainer.emulator.tokens import Signer, Tokens
from maintainer.emulator.watch import Watch

LOOPBACK = "127.0.0.1"
REPOSITORY = "example/app"

Service = Literal["v1", "v2"]

_TICK = 0.01

_T = TypeVar("_T")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the server."""
        yield

    async def main_loop(self) -> None:
        """Look ten times as often as uvicorn whether to stop: tests serve hundreds of caches."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            await asyncio.sleep(_TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop at once if nobody is connected, for whom uvicorn would wait."""
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
            await server.wait_closed()
        for one in sockets or ():
            one.close()


class Emulator:
    """One emulated service, and what a client must know to use it."""

    def __init__(self, cache: ActionsCache, *, host: str = LOOPBACK, port: int = 0) -> None:
        self.cache = cache
        self.site = Site(cache, Tokens(), Signer(cache.clock))
        self.faults = Faults(make_app(self.site))
        self.watch = Watch(self.faults, cache)
        # The protocol must be named: asyncio switches delays off for sockets that say they are TCP.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((host, port))
            self.socket.listen(128)
        except OSError:
            self.socket.close()
            raise
        bound = self.socket.getsockname()[1]
        self.url = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        self.server = _Server(_config(self.watch))

    def environment(
        self,
        ref: str,
        *,
        readable: Sequence[str] = (),
        write: bool = True,
        rest: bool = True,
        service: Service = "v2",
        repository: str = REPOSITORY,
    ) -> dict[str, str]:
        """Give the variables of a workflow on `ref` that also reads `readable`, in this order."""
        token = self.site.tokens.make_runtime_token(ref, readable, write=write)
        variables = {"GITHUB_REF": ref, "ACTIONS_RUNTIME_TOKEN": token}
        if service == "v2":
            variables |= {"ACTIONS_RESULTS_URL": f"{self.url}/", "ACTIONS_CACHE_SERVICE_V2": "true"}
        else:
            variables |= {"ACTIONS_CACHE_URL": f"{self.url}/"}
        if rest:
            variables |= {
                "GITHUB_TOKEN": self.site.tokens.rest_token,
                "GITHUB_REPOSITORY": repository,
                "GITHUB_API_URL": self.url,
            }
        return variables

    async def serve(self) -> None:
        """Serve until `server.should_exit` is set."""
        await self.server.serve(sockets=[self.socket])


class Running:
    """An emulator that serves on another thread."""

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self._emulator = emulator
        self._loop = loop
        self._thread = threading.get_ident()
        self.url = emulator.url
        self.environment = emulator.environment

    def call(self, function: Callable[[ActionsCache], _T]) -> _T:
        """Call `function` with the cache, between two requests.

        The cache may only be touched here and in observers, which run on the server's thread.
        """
        if threading.get_ident() == self._thread:
            return function(self._emulator.cache)

        async def between() -> _T:
            return function(self._emulator.cache)

        return asyncio.run_coroutine_threadsafe(between(), self._loop).result()

    def observe(self, *, before: Observer | None = None, after: Observer | None = None) -> None:
        """Replace the observers.

        `before` is called when a request has come in; `after` when it has been carried out and its
        answer is about to leave. What they raise is raised when the server is stopped.
        """
        self._emulator.watch.before = before
        self._emulator.watch.after = after

    def inject(self, faults: FaultPlan = NO_FAULTS) -> None:
        """Replace the fault plan, between two requests; its counts begin anew."""
        self.call(lambda _: self._emulator.faults.inject(faults))


@contextmanager
def serve_in_thread(
    cache: ActionsCache,
    *,
    port: int = 0,
    before: Observer | None = None,
    after: Observer | None = None,
    faults: FaultPlan = NO_FAULTS,
) -> Iterator[Running]:
    """Serve `cache` on loopback as long as the context lasts; port 0 takes a free one."""
    emulator = Emulator(cache, port=port)
    emulator.faults.inject(faults)
    started = threading.Event()
    running: list[Running] = []

    async def main() -> None:
        running.append(Running(emulator, asyncio.get_running_loop()))
        running[0].observe(before=before, after=after)
        started.set()
        await emulator.serve()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="emulator", daemon=True)
    thread.start()
    started.wait()
    try:
        yield running[0]
    finally:
        emulator.server.should_exit = True
        thread.join()
    if emulator.watch.failure:
        raise emulator.watch.failure


def _config(app: ASGIApp) -> uvicorn.Config:
    # What uvicorn would log, a client that goes away or an answer that was cut short, is either
    # meant or seen by the client.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
