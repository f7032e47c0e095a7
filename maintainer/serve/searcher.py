"""Searches the places of `[[discover]]` again and again, on a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

import anyio
from anyio.lowlevel import checkpoint

from maintainer.concurrency import for_each
from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.serve.discovery import places_of, record, retire, search
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
        """Call `searched` whenever a search may have changed the targets, in its thread."""
        self.settings = settings
        self._problems: Mapping[str, str] = {}
        self._database = database
        self._clock = clock
        self._searched = searched
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._active: tuple[asyncio.AbstractEventLoop, anyio.CancelScope] | None = None

    def reload(self, settings: Settings) -> None:
        """Search by other settings: at once, if other places are searched, or at other times."""
        before, self.settings = self.settings, settings
        if _searches(settings) != _searches(before):
            self._wake.set()
            self._cancel()

    @property
    def problems(self) -> dict[str, str]:
        """Why the last searches may not have found everything, by the name of the discovery.

        What concerns all of them has no name.
        """
        names = {table.name for table in self.settings.discover}
        return {name: why for name, why in self._problems.items() if name in names or not name}

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
        self._cancel()

    def _cancel(self) -> None:
        if active := self._active:
            loop, scope = active
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(scope.cancel)

    def search_once(self) -> bool:
        """Search all places; record what was found in each as soon as that is known.

        Return whether all were searched: other settings or the end cut this off.
        """
        if not anyio.run(self._search_all):
            return False
        retire(self._database, self.settings, self._clock)
        return True

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            try:
                if self.settings.discover:
                    if not self.search_once():
                        continue
                    self._searched()
                else:
                    self._problems = {}
            except DatabaseError as error:
                log.error("discovery: %s", error)  # noqa: TRY400 - one line is enough
                self._problems = {"": str(error)}
            except Exception:
                log.exception("discovery: this is a bug in maintainer")
                self._problems = {"": "a bug in maintainer: see the log"}
            self._wake.wait(self._pause())

    def _pause(self) -> float | None:
        if not self.settings.discover:
            return None
        interval = self.settings.serve.discover_interval
        return (min(interval, _AFTER_A_PROBLEM) if self.problems else interval).total_seconds()

    async def _search_all(self) -> bool:
        """Search places concurrently; return whether this was not cut off."""
        with anyio.CancelScope() as scope:
            self._active = asyncio.get_running_loop(), scope
            if self._ended.is_set():
                scope.cancel()
            # Whoever reloads later than this cancels the search.
            places = places_of(self.settings)
            try:
                await for_each(self._search_place, places, limit=len(places))
            finally:
                self._active = None
        return not scope.cancelled_caught

    async def _search_place(self, tables: Sequence[DiscoverSettings]) -> None:
        """Search a place, and record it: others may take minutes, as they ask for patience.

        What several tables find there is recorded together: each cache belongs to the first of
        them, and would change hands twice.
        """
        searches = await for_each(search, tables, limit=len(tables))
        await checkpoint()  # A search that was cut off is not recorded.
        changes = record(self._database, searches, self._clock)
        problems = {name: one.problem for name, one in changes.items() if one.problem}
        before = {name: why for name, why in self._problems.items() if name and name not in changes}
        self._problems = before | problems
        if any(one.new or one.gone for one in changes.values()):
            self._searched()


def _searches(settings: Settings) -> tuple[object, ...]:
    """Return what searches depend on."""
    return settings.discover, settings.serve.discover_interval
