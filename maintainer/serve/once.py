"""`maintainer serve --once`: run what is due, for people with a cron of their own."""

from dataclasses import replace
from datetime import datetime, timedelta

from maintainer.clock import now_utc
from maintainer.graph.clock import check_clock
from maintainer.graph.database import open_database
from maintainer.graph.schedule import AttemptResult, load_schedule
from maintainer.serve.clock import Rule
from maintainer.serve.searcher import Searcher
from maintainer.serve.targets import known_targets, read_targets
from maintainer.serve.timetable import start
from maintainer.serve.worker import STEP_TIMEOUT, Worker
from maintainer.settings import Settings
from maintainer.signals import interruptible

_MAX_EARLY = timedelta(minutes=1)


def serve_once(settings: Settings) -> list[AttemptResult]:
    """Run the targets that are due, one after the other, however late; return the results.

    Raises UsageError if the configuration is invalid, DatabaseError if the database is unusable.
    """
    read_targets(settings)
    results = []
    with open_database(settings.database) as database, database.lock_service():
        check_clock(database, now_utc)
        worker = Worker(database, {}, now_utc)
        searcher = Searcher(database, settings, now_utc, searched=lambda: None)

        def interrupt(signal: str) -> None:
            worker.interrupt(signal)
            searcher.cut_off()

        with interruptible(interrupt, worker.cut_off, patience=STEP_TIMEOUT):
            if settings.discover:
                searcher.search_once()
                results += [AttemptResult("failed", problem=x) for x in searcher.problems.values()]
            targets = worker.targets = known_targets(database, settings)
            start(database, targets.values(), now_utc())
            with database.reading() as connection:
                schedule = load_schedule(connection)
            for target in targets.values():
                due_at, now = schedule[target.name].next_run_at, now_utc()
                if due_at > now + early(target.rule):
                    continue
                if worker.interrupted_by:
                    results.append(AttemptResult("interrupted"))
                else:
                    next_run_at = following(target.rule, due_at, now)
                    results.append(worker.run(target, due_at, next_run_at))
    return results


def early(rule: Rule) -> timedelta:
    """Return how early a run may start: a caller such as cron is never exactly on time."""
    return timedelta(0) if rule.cron else min(_MAX_EARLY, rule.interval / 10)


def following(rule: Rule, due_at: datetime, now: datetime) -> datetime:
    """Return when a target is due after this; without jitter, which the caller does not know."""
    return replace(rule, jitter=timedelta(0)).next(due_at, now)
