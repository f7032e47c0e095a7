"""An emulated cache in a process of its own, so that the CPU time of its clients counts alone.

    python -m benchmarks.service GENERATIONS OTHERS

fills a cache, prints the variables of a client as a line of JSON, and serves. For each line on
stdin it prints the log of the requests since the last line, and starts a new log; from then on,
responses are delayed by as many seconds as the line says. It ends with stdin.
"""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.grown import MAIN, OTHERS, fill, generations, other_generations
from benchmarks.served import RequestLog
from maintainer.emulator import ActionsCache, Request
from maintainer.emulator.requests import classify, id_in
from maintainer.emulator.server import Emulator
from maintainer.webserver import serving

_AGE = timedelta(hours=36)
"""Of the last build: longer than the grace period."""
_SETTINGS = {
    "MAINTAINER_QUOTA": "100TB",
    # No program has to check contents, and the floor does not.
    "MAINTAINER_VERIFY_AFTER": "0",
}


class _Recorder:
    """An ASGI middleware that delays responses, and keeps a log of the requests."""

    def __init__(self, emulator: Emulator) -> None:
        self._app: ASGIApp = emulator.watch
        self._cache = emulator.cache
        self._delay = 0.0
        self._log = RequestLog(len(self._cache.entries()))
        emulator.watch.after = self._add

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        log = self._log
        is_list = scope["type"] == "http" and classify(scope["method"], scope["path"]) == "list"
        if is_list and not log.listing_began:
            log.listing_began = time.perf_counter()
        if self._delay:
            await asyncio.sleep(self._delay)
        await self._app(scope, receive, send)
        if is_list:
            log.listing_ended = time.perf_counter()

    async def restart(self, delay: float) -> RequestLog:
        """Return the log, and start a new one."""
        log, self._log = self._log, RequestLog(len(self._cache.entries()))
        self._delay = delay
        return log

    def _add(self, request: Request) -> None:
        log = self._log
        log.requests[request.kind] = log.requests.get(request.kind, 0) + 1
        if request.kind == "delete" and request.status == 204:
            log.deleted.append(id_in(request.path) or 0)


def make_cache(count: int, others: int) -> ActionsCache:
    """Return a cache with `count` generations of one scope, and `others` of four others."""
    cache = ActionsCache(quota=10**15)
    ends_at = datetime.now(UTC) - _AGE
    fill(cache, generations(count), ends_at)
    if others:
        fill(cache, other_generations(count, others), ends_at, OTHERS)
    return cache


def main(count: int, others: int) -> None:
    """Serve until stdin ends."""
    emulator = Emulator(make_cache(count, others))
    recorder = _Recorder(emulator)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    with serving(recorder, emulator.socket) as loop:
        _print(emulator.environment(MAIN) | _SETTINGS)
        for line in sys.stdin:
            restarted = recorder.restart(float(line))
            _print(asyncio.run_coroutine_threadsafe(restarted, loop).result())


def _print(value: object) -> None:
    print(msgspec.json.encode(value).decode(), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
