"""Brings the schedule into line with what is configured."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.graph.runs import end_killed_runs
from maintainer.graph.schedule import (
    Due,
    end_killed_attempts,
    forget_jobs,
    keep_targets,
    load_due,
    save_target,
)
from maintainer.scheduler import Schedule, next_time
from maintainer.serve.runner import backoff
from maintainer.serve.targets import ServedTarget

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Changes:
    """What was written down of a configuration, and is not yet true of the schedule."""

    gone: Collection[str]
    """Targets that are not to run any more."""
    due: Collection[tuple[ServedTarget, datetime]]
    """Targets that are new or changed, and when they run next."""
    again: Collection[str] = ()
    """Those of them whose last run did not end well: they are made up for, however late."""

    def take_effect(self, schedule: Schedule) -> None:
        """Let the targets run when they are due."""
        for name in self.gone:
            schedule.remove(name)
        for target, due_at in self.due:
            may_be_late = target.name in self.again
            schedule.set(target.name, target.rule, due_at, may_be_late=may_be_late)


def take_up(
    database: Database, schedule: Schedule, targets: Collection[ServedTarget], now: datetime
) -> None:
    """Schedule the targets for the first time in this process, and open the schedule.

    A target whose rule is what it was runs when it was to run, or now if that is over. What was
    killed has failed.
    """
    _end_killed_runs(database, now)
    with database.begin() as connection:
        killed = end_killed_attempts(connection, now)
        _forget_others(connection, targets)
        known = load_due(connection)
        forget_jobs(connection)
        due = [
            (target, _due_at(target, known.get(target.name), now, killed=target.name in killed))
            for target in targets
        ]
        _write_down(connection, targets, due)
    for name in sorted(killed):
        log.error("%s: the process was killed during the last run", name)
    schedule.open()
    Changes((), due, _again(known) | killed).take_effect(schedule)


def take_over(database: Database, targets: Collection[ServedTarget], now: datetime) -> Changes:
    """Write a changed configuration down, as a whole or, if this raises, not at all.

    What is unchanged, and does not fail, is left alone. Raises DatabaseError.
    """
    with database.begin() as connection:
        scheduled = load_due(connection).keys()
        _forget_others(connection, targets)
        known = load_due(connection)
        due = [
            (target, _due_at(target, known.get(target.name), now))
            for target in targets
            if not _is_unchanged(target, known.get(target.name))
        ]
        _write_down(connection, targets, due)
    return Changes(scheduled - {target.name for target in targets}, due, _again(known))


def _again(known: Mapping[str, Due]) -> set[str]:
    """Give the targets whose last run is to be made up for."""
    return {name for name, due in known.items() if due.failures or due.was_interrupted}


def _forget_others(connection: Connection, targets: Collection[ServedTarget]) -> None:
    keep_targets(connection, {target.name: target.cache for target in targets})


def _write_down(
    connection: Connection,
    targets: Collection[ServedTarget],
    due: Iterable[tuple[ServedTarget, datetime]],
) -> None:
    positions = {target.name: position for position, target in enumerate(targets)}
    for target, due_at in due:
        save_target(
            connection,
            target.name,
            position=positions[target.name],
            cache=target.cache,
            rule=str(target.rule),
            misfire_grace=target.rule.misfire_grace,
            due_at=due_at,
        )


def _end_killed_runs(database: Database, now: datetime) -> None:
    try:
        with database.held(), database.begin() as connection:
            end_killed_runs(connection, now)
    except DatabaseError as error:
        # Whoever holds it has done so, before the run that is under way.
        log.debug("%s", error)


def _due_at(
    target: ServedTarget, known: Due | None, now: datetime, *, killed: bool = False
) -> datetime:
    """Tell when a target is to run. One that fails runs now: what was wrong may be put right.

    Not so if its run was killed, for what has killed it may do so again.
    """
    if known is None:
        return target.rule.after(now)
    if killed:
        return now + backoff(known.failures, target.settings.serve.backoff_max)
    is_changed = known.rule != str(target.rule)
    if known.is_running and (is_changed or known.failures):
        # A run that is due before this one ends would be left out.
        return next_time(target.rule, now)
    if is_changed:
        return target.rule.after(now)
    if known.failures:
        return now
    # A clock that was ahead for a while has left a time behind that is too far away.
    latest = next_time(target.rule, now) + target.rule.jitter
    # APScheduler would count an interval up from a time long past, one by one.
    next_run_at = known.next_run_at if target.rule.cron else max(known.next_run_at, now)
    return min(next_run_at, latest)


def _is_unchanged(target: ServedTarget, known: Due | None) -> bool:
    return known is not None and (known.rule, known.misfire_grace_seconds, known.failures) == (
        str(target.rule),
        int(target.rule.misfire_grace.total_seconds()),
        0,
    )
