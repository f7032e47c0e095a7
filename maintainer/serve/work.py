"""`maintainer worker`: from the first connection to the last signal."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from maintainer.clock import now_utc
from maintainer.database_url import is_postgresql
from maintainer.errors import MaintainerError, UsageError, how_to_install
from maintainer.graph.database import open_database
from maintainer.serve.reloading import Changes, read_again
from maintainer.serve.targets import read_targets
from maintainer.serve.worker import STEP_TIMEOUT, Worker
from maintainer.settings import Settings
from maintainer.signals import RELOAD, Queue, interruptible, received

_FOLLOWS_EVERY = 60.0
"""Seconds until a worker knows what the service has found."""

log = logging.getLogger(__name__)


def work(load: Callable[[], Settings], concurrency: int) -> None:
    """Run targets that are due, with all other workers on the database, until SIGINT or SIGTERM.

    `load` reads the configuration: now, and again at each SIGHUP. Raises UsageError if it is
    invalid now, or without a server; DatabaseError if the database is unusable now.
    """
    settings = load()
    if not is_postgresql(settings.database):
        raise UsageError(
            "workers need a database of a PostgreSQL server: set `database`, or use `maintainer "
            "serve`, which needs only a file"
        )
    try:
        from maintainer.serve.fleet import Fleet  # noqa: PLC0415 - optional
    except ImportError:
        raise UsageError(
            "workers need the extra workers (procrastinate is missing): "
            f"{how_to_install('workers')}"
        ) from None
    read_targets(settings)
    with open_database(settings.database) as database, received(RELOAD) as events:
        worker = Worker(database, {}, now_utc)
        changes = Changes(settings, database, worker)
        changes.follow()
        fleet = Fleet(
            database,
            settings.database,
            worker,
            now_utc,
            concurrency=concurrency,
            limit=lambda: changes.settings.serve.runs_per_host,
        )
        with (
            interruptible(worker.interrupt, worker.cut_off, patience=STEP_TIMEOUT),
            _reloading(events, lambda: read_again(load, settings, changes)),
            following(changes),
        ):
            fleet.work()


def _reloading(events: Queue, reload: Callable[[], object]) -> AbstractContextManager[None]:
    """Reload the configuration at each signal, in a thread."""

    def wait() -> None:
        while events.get():
            reload()

    return _beside("reload", wait, end=lambda: events.put(None))


def following(changes: Changes) -> AbstractContextManager[None]:
    """Run what the searches of a service find, too, from a minute after it was found."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_FOLLOWS_EVERY):
            try:
                if changes.settings.discover:
                    changes.learn()
            except MaintainerError as error:
                log.error("what was found: %s", error)  # noqa: TRY400

    return _beside("follow", follow, end=ended.set)


@contextmanager
def _beside(name: str, run: Callable[[], None], *, end: Callable[[], None]) -> Iterator[None]:
    """Run something in a thread as long as the context lasts; `end` ends it."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()
