"""Updates the schedule in the database to the configuration."""

import logging
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection

from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.graph.runs import end_killed_runs, targets_running
from maintainer.graph.schedule import (
    NextRun,
    Scheduled,
    caches_running,
    end_killed_attempts,
    forget_other_targets,
    load_schedule,
    lock_schedule,
    reschedule,
    save_next_runs,
)
from maintainer.serve.targets import ServedTarget
from maintainer.serve.worker import backoff

log = logging.getLogger(__name__)


def start(database: Database, targets: Collection[ServedTarget], now: datetime) -> None:
    """Schedule the targets for the first time in this process.

    A target with an unchanged rule runs when it was due, or now if that time has passed. A killed
    run has failed.
    """
    with database.reading() as connection:
        caches = caches_running(connection) | {*targets_running(connection).values()}
    _end_killed_runs(database, caches, now)
    with database.begin() as connection:
        lock_schedule(connection)
        killed = end_killed_attempts(connection, now)
        known = _forget_others(connection, targets)
        saved = []
        for position, target in enumerate(targets):
            before = known.get(target.name)
            next_run_at = (
                now + backoff(before.failures, target.settings.serve.backoff_max)
                if before and target.name in killed
                else _next_run_at(target, before, now)
            )
            saved.append(_next_run(position, target, next_run_at))
        save_next_runs(connection, saved)
    _log_killed(killed)


def reload(database: Database, targets: Collection[ServedTarget], now: datetime) -> None:
    """Schedule the targets of a changed configuration: all of them or, if this raises, none.

    Targets that are unchanged and do not fail keep their times. Raises DatabaseError.
    """
    _save_changed(database, targets, now, is_retried=True)


def join(database: Database, targets: Collection[ServedTarget], now: datetime) -> None:
    """Schedule the targets of a configuration that other workers may have scheduled already.

    Targets that are unchanged keep their times, even if they fail. Raises DatabaseError.
    """
    _save_changed(database, targets, now, is_retried=False)


def _save_changed(
    database: Database, targets: Collection[ServedTarget], now: datetime, *, is_retried: bool
) -> None:
    with database.begin() as connection:
        lock_schedule(connection)
        known = _forget_others(connection, targets)
        saved = [
            _next_run(position, target, _next_run_at(target, before, now))
            for position, target in enumerate(targets)
            if not _is_unchanged(target, before := known.get(target.name))
            or (is_retried and before and before.failures)
        ]
        save_next_runs(connection, saved)


def end_killed(database: Database, targets: Collection[ServedTarget], now: datetime) -> None:
    """Record attempts whose lease is over as failed, and when they are retried.

    Raises DatabaseError.
    """
    with database.reading() as connection:
        caches = caches_running(connection, only_without_lease=True)
    if not caches:
        return
    _end_killed_runs(database, caches, now)
    with database.begin() as connection:
        killed = end_killed_attempts(connection, now)
        known = load_schedule(connection)
        for target in targets:
            if target.name in killed and (before := known.get(target.name)):
                pause = backoff(before.failures, target.settings.serve.backoff_max)
                reschedule(connection, target.name, target.cache, now + pause)
    _log_killed(killed)


def _log_killed(killed: Collection[str]) -> None:
    for name in sorted(killed):
        log.error("%s: the process was killed during the last run", name)


def _forget_others(
    connection: Connection, targets: Collection[ServedTarget]
) -> dict[str, Scheduled]:
    forget_other_targets(connection, {target.name: target.cache for target in targets})
    return load_schedule(connection)


def _next_run(position: int, target: ServedTarget, at: datetime) -> NextRun:
    rule = target.rule
    return NextRun(target.name, position, target.cache, str(rule), rule.misfire_grace, at)


def _end_killed_runs(database: Database, caches: Collection[str], now: datetime) -> None:
    """End what is recorded as running on some caches, unless somebody has the lease."""
    for name in sorted(caches):
        try:
            with database.lease(name), database.begin() as connection:
                for target_id, running in targets_running(connection).items():
                    if running == name:
                        end_killed_runs(connection, target_id, now)
        except DatabaseError as error:
            # The process with the lock did this before its active run.
            log.debug("%s", error)


def _next_run_at(target: ServedTarget, known: Scheduled | None, now: datetime) -> datetime:
    """Return when a target runs next. A failing one runs now: its problem may be solved."""
    if known is None:
        return target.rule.first(now)
    is_changed = known.rule != str(target.rule)
    if known.is_running and (is_changed or known.failures):
        return target.rule.next(now, now)
    if is_changed:
        return target.rule.first(now)
    if known.failures:
        return now
    # After a late run, the next one is a whole interval later.
    due_at = known.due_at if target.rule.cron else max(known.due_at, now)
    # If the system time was ahead for a while, the stored time is too far in the future.
    return min(due_at, target.rule.latest(now))


def _is_unchanged(target: ServedTarget, known: Scheduled | None) -> bool:
    return known is not None and (known.rule, known.misfire_grace_seconds) == (
        str(target.rule),
        int(target.rule.misfire_grace.total_seconds()),
    )
