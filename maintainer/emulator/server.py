"""Runs the emulator, on a thread of its own."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

from maintainer.emulator.app import make_app
from maintainer.emulator.faults import NO_FAULTS, FaultPlan
from maintainer.emulator.injection import Faults
from maintainer.emulator.rate_limit import RateLimit
from maintainer.emulator.requests import Observer
from maintainer.emulator.site import Site
from maintainer.emulator.state import ActionsCache
from maintainer.emulator.tokens import Signer, Tokens
from maintainer.emulator.watch import Watch
from maintainer.webserver import listen, serving, url_of

LOOPBACK = "127.0.0.1"
REPOSITORY = "example/app"

Service = Literal["v1", "v2"]

_T = TypeVar("_T")


class Emulator:
    """One emulated service, and the variables that its clients need."""

    def __init__(self, cache: ActionsCache, *, host: str = LOOPBACK, port: int = 0) -> None:
        self.cache = cache
        self.site = Site(cache, Tokens(), Signer(cache.clock))
        self.rate_limit = RateLimit(make_app(self.site))
        self.faults = Faults(self.rate_limit)
        self.watch = Watch(self.faults, cache)
        self.socket = listen(host, port)
        self.url = url_of(self.socket)

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
        """Return the variables of a workflow on `ref` that also reads `readable`, in this order."""
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

    @contextmanager
    def serving(self) -> Iterator["Running"]:
        """Serve on a thread of its own as long as the context lasts."""
        # What uvicorn would log, a client that goes away or an answer that was cut short, is either
        # intended or seen by the client.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        with serving(self.watch, self.socket) as loop:
            yield Running(self, loop)


class Running:
    """An emulator that serves on another thread."""

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self._emulator = emulator
        self._loop = loop
        self.url = emulator.url
        self.account = emulator.site.account
        """May only be changed between two requests, as the cache."""
        self.rate_limit = emulator.rate_limit
        """May only be changed between two requests, too."""
        self.environment = emulator.environment

    def call(self, function: Callable[[ActionsCache], _T]) -> _T:
        """Call `function` with the cache, between two requests.

        The cache may only be touched here and in observers, which run on the server's thread.
        """
        if self._is_on_its_thread():
            return function(self._emulator.cache)

        async def between() -> _T:
            return function(self._emulator.cache)

        return asyncio.run_coroutine_threadsafe(between(), self._loop).result()

    def _is_on_its_thread(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def observe(self, *, before: Observer | None = None, after: Observer | None = None) -> None:
        """Replace the observers.

        `before` is called when a request has arrived; `after` when it has been carried out and its
        response is about to be sent. Their exceptions are raised when the server stops.
        """
        self._emulator.watch.before = before
        self._emulator.watch.after = after

    def inject(self, faults: FaultPlan = NO_FAULTS) -> None:
        """Replace the fault plan, between two requests; its counts start at zero."""
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
    emulator.watch.before, emulator.watch.after = before, after
    with emulator.serving() as running:
        yield running
    if emulator.watch.failure:
        raise emulator.watch.failure
