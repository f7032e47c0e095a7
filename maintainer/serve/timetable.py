"""Updates the schedule in the database to the configuration."""

import logging
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection

from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.graph.runs import end_killed_runs, targets_running
from maintainer.graph.schedule import (
    Scheduled,
    end_killed_attempts,
    forget_other_targets,
    load_schedule,
    save_target,
)
from maintainer.serve.targets import ServedTarget
from maintainer.serve.worker import backoff

log = logging.getLogger(__name__)


def start(database: Database, targets: Collection[ServedTarget], now: datetime) -> None:
    """Schedule the targets for the first time in this process.

    A target with an unchanged rule runs when it was due, or now if that time has passed. A killed
    run has failed.
    """
    _end_killed_runs(database, now)
    with database.begin() as connection:
        killed = end_killed_attempts(connection, now)
        _forget_others(connection, targets)
        known = load_schedule(connection)
        for position, target in enumerate(targets):
            before = known.get(target.name)
            next_run_at = (
                now + backoff(before.failures, target.settings.serve.backoff_max)
                if before and target.name in killed
                else _next_run_at(target, before, now)
            )
            _save(connection, position, target, next_run_at)
    for name in sorted(killed):
        log.error("%s: the process was killed during the last run", name)


def reload(database: Database, targets: Collection[ServedTarget], now: datetime) -> None:
    """Schedule the targets of a changed configuration: all of them or, if this raises, none.

    Targets that are unchanged and do not fail keep their times. Raises DatabaseError.
    """
    with database.begin() as connection:
        _forget_others(connection, targets)
        known = load_schedule(connection)
        for position, target in enumerate(targets):
            before = known.get(target.name)
            if not _is_unchanged(target, before):
                _save(connection, position, target, _next_run_at(target, before, now))


def _forget_others(connection: Connection, targets: Collection[ServedTarget]) -> None:
    forget_other_targets(connection, {target.name: target.cache for target in targets})


def _save(
    connection: Connection, position: int, target: ServedTarget, next_run_at: datetime
) -> None:
    save_target(
        connection,
        target.name,
        position=position,
        cache=target.cache,
        rule=str(target.rule),
        misfire_grace=target.rule.misfire_grace,
        next_run_at=next_run_at,
    )


def _end_killed_runs(database: Database, now: datetime) -> None:
    with database.reading() as connection:
        running = targets_running(connection)
    for target_id, name in running.items():
        try:
            with database.lease(name), database.begin() as connection:
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
    # If the system time was ahead for a while, the stored time is too far in the future.
    latest = target.rule.next(now, now) + target.rule.jitter
    # After a late run, the next one is a whole interval later.
    due_at = known.due_at if target.rule.cron else max(known.due_at, now)
    return min(due_at, latest)


def _is_unchanged(target: ServedTarget, known: Scheduled | None) -> bool:
    return known is not None and (known.rule, known.misfire_grace_seconds, known.failures) == (
        str(target.rule),
        int(target.rule.misfire_grace.total_seconds()),
        0,
    )
