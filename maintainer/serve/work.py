"""`maintainer worker`: from the first connection to the last signal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from maintainer.database_url import is_postgresql
from maintainer.errors import UsageError
from maintainer.graph.database import Database
from maintainer.serve.reloading import read_again
from maintainer.serve.targets import read_targets
from maintainer.serve.timetable import join
from maintainer.serve.worker import STEP_TIMEOUT, Worker
from maintainer.settings import Settings
from maintainer.signals import RELOAD, Queue, interruptible, received
from maintainer.stages.run import now_utc


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
            "workers need procrastinate: pip install 'buildkit-maintainer[workers]'"
        ) from None
    targets = read_targets(settings)
    with closing(Database(settings.database)) as database, received(RELOAD) as events:
        database.upgrade()
        join(database, targets.values(), now_utc())
        worker = Worker(database, targets, now_utc)
        fleet = Fleet(
            database,
            settings.database,
            worker,
            now_utc,
            concurrency=concurrency,
            limit=settings.serve.runs_per_host,
        )
        with (
            interruptible(worker.interrupt, worker.cut_off, patience=STEP_TIMEOUT),
            _reloading(events, lambda: read_again(load, settings, database, worker)),
        ):
            fleet.work()


@contextmanager
def _reloading(events: Queue, reload: Callable[[], object]) -> Iterator[None]:
    """Reload the configuration at each signal, in a thread."""

    def wait() -> None:
        while events.get():
            reload()

    thread = threading.Thread(target=wait, name="reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        events.put(None)
        thread.join()
