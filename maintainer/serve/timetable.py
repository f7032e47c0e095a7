"""Brings the schedule into line with what is configured."""

from collections.abc import Collection
from datetime import datetime

from maintainer.graph.database import Database
from maintainer.graph.schedule import (
    Due,
    end_attempts,
    forget_jobs,
    keep_targets,
    load_due,
    save_target,
)
from maintainer.scheduler import Schedule
from maintainer.serve.targets import ServedTarget


def take_up(
    database: Database, schedule: Schedule, targets: Collection[ServedTarget], now: datetime
) -> None:
    """Schedule the targets for the first time in this process, and open the schedule.

    A target whose rule is what it was runs when it was to run, or now if that is over.
    """
    with database.begin() as connection:
        end_attempts(connection)
        known = load_due(connection)
        forget_jobs(connection)
    schedule.open()
    for position, target in enumerate(targets):
        _set(database, schedule, target, position, _due_at(target, known.get(target.name), now))
    _forget_others(database, targets)


def take_over(
    database: Database, schedule: Schedule, targets: Collection[ServedTarget], now: datetime
) -> None:
    """Take a changed configuration over. What is unchanged, and does not fail, is left alone."""
    with database.reading() as connection:
        known = load_due(connection)
    for name in known.keys() - {target.name for target in targets}:
        schedule.remove(name)
    for position, target in enumerate(targets):
        due = known.get(target.name)
        if not _is_unchanged(target, due):
            _set(database, schedule, target, position, _due_at(target, due, now))
    _forget_others(database, targets)


def _set(
    database: Database, schedule: Schedule, target: ServedTarget, position: int, due_at: datetime
) -> None:
    with database.begin() as connection:
        save_target(
            connection,
            target.name,
            position=position,
            rule=str(target.rule),
            misfire_grace=target.rule.misfire_grace,
            due_at=due_at,
        )
    schedule.set(target.name, target.rule, due_at)


def _due_at(target: ServedTarget, known: Due | None, now: datetime) -> datetime:
    """Tell when a target is to run. One that fails runs now: what was wrong may be put right."""
    if known is None or known.rule != str(target.rule):
        return target.rule.after(now)
    if known.failures:
        return now
    # APScheduler would count an interval up from a time long past, one by one.
    return known.next_run_at if target.rule.cron else max(known.next_run_at, now)


def _is_unchanged(target: ServedTarget, known: Due | None) -> bool:
    return known is not None and (known.rule, known.misfire_grace_seconds, known.failures) == (
        str(target.rule),
        int(target.rule.misfire_grace.total_seconds()),
        0,
    )


def _forget_others(database: Database, targets: Collection[ServedTarget]) -> None:
    with database.begin() as connection:
        keep_targets(connection, [target.name for target in targets])
