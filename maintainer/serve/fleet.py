"""The fleet: jobs of procrastinate, which say that a target is due, and what handles them.

When a target runs, and whether again, is for the schedule to say: a job is a hint, which the engine
never retries, and whoever runs it claims the target first. What the engine adds is that a job goes
to one worker at once, in order, and to another one if there is no answer.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic

import anyio
from anyio.to_thread import run_sync
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ProcrastinateException
from procrastinate.jobs import Job
from procrastinate.schema import SchemaManager
from procrastinate.worker import Worker as Engine
from psycopg import Error as DriverError

from maintainer.errors import ClockError, DatabaseError
from maintainer.graph.allowances import KnownLimits, load_limits
from maintainer.graph.clock import check_clock, load_now
from maintainer.graph.columns import from_number, to_number
from maintainer.graph.database import Database
from maintainer.graph.postgresql import configuring, driver_arguments, explain
from maintainer.graph.queue import (
    Waiting,
    create_queue,
    delete_dead_jobs,
    load_due,
    load_queued,
    lock_dispatch,
    schema_of,
)
from maintainer.serve.timetable import end_killed
from maintainer.serve.worker import SET_BACK, Worker

_QUEUE, _LONG = "maintainer", "maintainer-long"
"""The queues: one of the two is for targets whose runs take long."""
_EVERY_FIVE_SECONDS = "* * * * * */5"
_EVERY_HALF_MINUTE = "* * * * * */30"
_MAX_WAITING = 1_000
"""So many jobs wait at most: the engine takes longer to find the next one, the more there are."""
_AFTER_A_RUN = 100
"""So many targets are looked at after each run."""
_FIRST = 1
"""The priority of what keeps the queue going."""
_HEARTBEAT = 10.0
"""Seconds."""
_STALLED_AFTER = 60.0
"""Seconds without a heartbeat until a worker counts as dead."""
_RETRY_AFTER = 5.0
"""Seconds until a worker that lost the queue connects again."""
_ATTENTION = 0.5
"""Seconds until a worker notices at the latest that it must stop."""
_CONNECTIONS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


class Fleet:
    """One worker among those that share a queue."""

    def __init__(
        self,
        database: Database,
        url: str,
        worker: Worker,
        clock: Callable[[], datetime],
        *,
        concurrency: int,
        limit: Callable[[], int],
    ) -> None:
        """Run so many targets at once; of one host, all workers run so many as the limit allows.

        The limit is that of the configuration, which may be reloaded.
        """
        self._database = database
        self._worker = worker
        self._clock = clock
        self._concurrency = concurrency
        self._limit = limit
        self._was_on_time = True
        self._resting: set[str] = set()
        """The hosts whose targets wait for a rate limit."""
        self._definition = SchemaManager.get_schema()
        self._schema = schema_of(self._definition)
        self._arguments = driver_arguments(url)

    def work(self) -> None:
        """Run what is due until a signal interrupts the worker. Raises DatabaseError at the start.

        If the database is away for a while, this waits until it is back.
        """
        with self._database.begin() as connection:
            create_queue(connection, self._definition)
        while not self._worker.interrupted_by:
            try:
                is_set_back = asyncio.run(self._serve_queue())
            except (DriverError, ProcrastinateException, OSError) as error:
                why = explain(error.__cause__ or error)
                log.error("the queue cannot be used: %s", why)  # noqa: TRY400
            else:
                if is_set_back:
                    log.warning("the system time was set back: starting again")
                elif not self._worker.interrupted_by:
                    log.error("the connection to the queue was lost: connecting again")
            self._worker.pause(_RETRY_AFTER)

    async def _serve_queue(self) -> bool:
        """Work until a signal, or as long as that goes; return whether the time was set back."""
        app = self._make_app()
        is_set_back = watch(self._clock)
        async with app.open_async():
            engines = [
                Engine(
                    app,
                    queues=queues,
                    concurrency=concurrency,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    update_heartbeat_interval=_HEARTBEAT,
                    stalled_worker_timeout=_STALLED_AFTER,
                )
                for queues, concurrency in share(self._concurrency)
            ]
            serving = [asyncio.create_task(one.run()) for one in engines]  # type: ignore[no-untyped-call]
            log.info("working, up to %d targets at once", self._concurrency)
            # An engine forgets that it was stopped before it began.
            await asyncio.sleep(0)
            ended = False
            while not (ended or self._worker.interrupted_by or any(one.done() for one in serving)):
                await asyncio.sleep(_ATTENTION)
                ended = is_set_back()
            for engine in engines:
                engine.stop()  # type: ignore[no-untyped-call]
            await asyncio.gather(*serving)
        return ended

    def _make_app(self) -> App:
        """Return the engine's application: what may be in the queue, and what is periodic."""
        app = App(
            connector=PsycopgConnector(
                kwargs=self._arguments,
                configure=configuring(self._schema),
                min_size=1,
                max_size=_CONNECTIONS,
                name="queue",
            )
        )
        threads = anyio.CapacityLimiter(self._concurrency)

        @app.task(name="run", queue=_QUEUE)
        async def run(name: str, due_at: int) -> None:
            # Its host has room for another one. Others may have targets that this worker does not
            # know: to dispatch after each of these would put them into the queue again and again.
            if await run_sync(self._run, name, from_number(due_at), limiter=threads):
                await self._dispatch(app, _AFTER_A_RUN)

        # A lock would stay with a worker that is killed, and nobody would dispatch or sweep.
        @app.periodic(cron=_EVERY_FIVE_SECONDS)
        @app.task(name="dispatch", queue=_QUEUE, queueing_lock="dispatch", priority=_FIRST)
        async def dispatch(timestamp: int) -> None:
            del timestamp
            await self._dispatch(app, None)

        @app.periodic(cron=_EVERY_HALF_MINUTE)
        @app.task(name="sweep", queue=_QUEUE, queueing_lock="sweep", priority=_FIRST)
        async def sweep(timestamp: int) -> None:
            del timestamp
            await run_sync(self._sweep)
            await app.job_manager.prune_stalled_workers(_STALLED_AFTER)

        return app

    def _run(self, name: str, due_at: datetime) -> bool:
        try:
            return self._is_on_time() and self._worker.run_due_at(name, due_at)
        except DatabaseError as error:
            log.error("%s: %s", name, error)  # noqa: TRY400
            return False

    def _is_on_time(self) -> bool:
        """Whether our clock is about right: another one would shorten grace periods, and pauses."""
        try:
            check_clock(self._database, self._clock)
        except ClockError as error:
            if self._was_on_time:
                log.error("no runs: %s", error)  # noqa: TRY400 - one line is enough
            self._was_on_time = False
        else:
            self._was_on_time = True
        return self._was_on_time

    async def _dispatch(self, app: App, limit: int | None) -> None:
        """Put what is due into the queue, or only some of it, unless somebody else does."""
        loop = asyncio.get_running_loop()

        def defer(due: Iterable[Waiting]) -> None:
            if jobs := [_job(one) for one in due]:
                deferring = app.job_manager.batch_defer_jobs_async(jobs)
                asyncio.run_coroutine_threadsafe(deferring, loop).result()

        def dispatch() -> None:
            with self._database.begin() as connection:
                if lock_dispatch(connection):
                    queued = load_queued(connection, self._schema)
                    due = load_due(connection, load_now(connection), limit)
                    ready = self._without_resting(due, load_limits(connection))
                    defer(choose(ready, queued, self._host_of, self._limit()))

        try:
            await run_sync(dispatch)
        except DatabaseError as error:
            log.error("the schedule: %s", error)  # noqa: TRY400
        except AlreadyEnqueued as error:
            log.debug("%s", error)  # The next dispatch is soon.

    def _without_resting(self, due: Sequence[Waiting], known: KnownLimits) -> list[Waiting]:
        """Return what is due, without what would need a rate limit that is exhausted."""
        resting = {one.name for one in due if self._worker.is_resting(one.name, known)}
        hosts = {self._host_of(name) for name in resting}
        for host in sorted(hosts - self._resting):
            log.warning("%s: the rate limit is exhausted: targets wait for its reset", host)
        # Only some of what is due may be known: a host rests as long as others do not run.
        self._resting = (self._resting - {self._host_of(one.name) for one in due}) | hosts
        return [one for one in due if one.name not in resting]

    def _host_of(self, name: str) -> str:
        target = self._worker.targets.get(name)
        return target.host if target else ""

    def _sweep(self) -> None:
        try:
            if not self._is_on_time():
                return
            end_killed(self._database, self._worker.targets.values(), self._clock())
            with self._database.begin() as connection:
                dead = delete_dead_jobs(connection, self._schema)
        except DatabaseError as error:
            log.error("the schedule: %s", error)  # noqa: TRY400
            return
        for name in dead:
            log.warning("%s: its worker does not answer: another one may run it", name)


def watch(clock: Callable[[], datetime]) -> Callable[[], bool]:
    """Return what says whether a clock was set back since: the engine would dispatch nothing.

    It goes on from the last time at which it dispatched.
    """
    most = _ahead(clock)

    def is_set_back() -> bool:
        nonlocal most
        now = _ahead(clock)
        most = max(most, now)
        return now < most - SET_BACK

    return is_set_back


def _ahead(clock: Callable[[], datetime]) -> timedelta:
    """Return how much a clock is ahead of one that nobody sets."""
    return clock() - _EPOCH - timedelta(seconds=monotonic())


def share(concurrency: int) -> list[tuple[list[str], int]]:
    """Return how a worker divides itself: queues, and how many of their jobs it runs at once.

    If it runs several, one place is not for targets whose runs take long, so that others go on.
    """
    if concurrency == 1:
        return [([_QUEUE, _LONG], 1)]
    return [([_QUEUE, _LONG], concurrency - 1), ([_QUEUE], 1)]


def choose(
    due: Iterable[Waiting],
    queued: Collection[str],
    host_of: Callable[[str], str],
    limit: int,
) -> Iterator[Waiting]:
    """Return which of the targets that are due, in order, come into the queue now.

    `limit` is how many targets of one host may be there; directories have none.
    """
    waiting = len(queued)
    hosts = Counter(map(host_of, queued))
    for one in due:
        if waiting >= _MAX_WAITING:
            return
        host = host_of(one.name)
        if one.name in queued or (host and hosts[host] >= limit):
            continue
        hosts[host] += 1
        waiting += 1
        yield one


def _job(due: Waiting) -> Job:
    return Job(
        task_name="run",
        queue=_LONG if due.is_long else _QUEUE,
        lock=due.name,
        queueing_lock=f"run {due.name}",
        task_kwargs={"name": due.name, "due_at": to_number(due.due_at)},
    )
