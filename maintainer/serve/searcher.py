"""Searches the places of `[[discover]]` again and again, on a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

import anyio

from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.graph.discovered import Search
from maintainer.serve.discovery import record, retire, search
from maintainer.settings import DiscoverSettings, Settings

_AFTER_A_PROBLEM = timedelta(minutes=5)

log = logging.getLogger(__name__)


class Searcher:
    """Records what it finds. Errors are logged, not raised."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        clock: Callable[[], datetime],
        searched: Callable[[], object],
    ) -> None:
        """Call `searched` after each search, in the thread of the searcher."""
        self.settings = settings
        self.problems: Mapping[str, str] = {}
        """Why the last searches may not have found everything, by the name of the discovery."""
        self._database = database
        self._clock = clock
        self._searched = searched
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._active: tuple[asyncio.AbstractEventLoop, anyio.CancelScope] | None = None

    def reload(self, settings: Settings) -> None:
        """Search by other settings, at once if other places are to be searched."""
        before, self.settings = self.settings, settings
        if settings.discover != before.discover:
            self._wake.set()

    @property
    def trouble(self) -> dict[str, str]:
        """The problems of the last searches, by what people call each place."""
        return {f"discovery {name}".rstrip(): why for name, why in self.problems.items()}

    @contextmanager
    def searching(self, timeout: float) -> Iterator[None]:
        """Search as long as the context lasts; then cut the search off, and wait for its end."""
        thread = threading.Thread(target=self._run, name="discovery", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.cut_off()
            thread.join(timeout)

    def cut_off(self) -> None:
        """End the active search, without a result, and start no other."""
        self._ended.set()
        self._wake.set()
        if active := self._active:
            loop, scope = active
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(scope.cancel)

    def search_once(self) -> None:
        """Search all places, and record what was found."""
        tables = self.settings.discover
        searches = anyio.run(self._search_all, tables)
        if self._ended.is_set():
            return  # It was cut off.
        now = self._clock()
        self.problems = record(self._database, searches, now)
        retire(self._database, self.settings, now)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            try:
                if self.settings.discover:
                    self.search_once()
                    self._searched()
            except DatabaseError as error:
                log.error("discovery: %s", error)  # noqa: TRY400 - one line is enough
                self.problems = {"": str(error)}
            except Exception:
                log.exception("discovery: this is a bug in maintainer")
                self.problems = {"": "a bug in maintainer: see the log"}
            self._wake.wait(self._pause())

    def _pause(self) -> float | None:
        if not self.settings.discover:
            return None
        interval = self.settings.serve.discover_interval
        return (min(interval, _AFTER_A_PROBLEM) if self.problems else interval).total_seconds()

    async def _search_all(self, tables: Sequence[DiscoverSettings]) -> Sequence[Search]:
        """Search places concurrently; what was cut off is missing."""
        searches: list[Search] = []

        async def add(table: DiscoverSettings) -> None:
            searches.append(await search(table))

        with anyio.CancelScope() as scope:
            self._active = asyncio.get_running_loop(), scope
            if self._ended.is_set():
                scope.cancel()
            try:
                async with anyio.create_task_group() as tasks:
                    for table in tables:
                        tasks.start_soon(add, table)
            finally:
                self._active = None
        return searches
