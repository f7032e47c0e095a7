"""The targets of a service: when they run next, and the results of their last attempts."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    true,
    update,
)

from maintainer.graph.dialect import database_now, insert_or_update, is_shared, lock_table
from maintainer.graph.ended import count_ended, move_ended
from maintainer.graph.rows import execute_each
from maintainer.graph.tables import LEASE, RUN, SCHEDULED, SUMMARY, TARGET


class Scheduled(msgspec.Struct, frozen=True):
    """When a target runs next, and what that depends on."""

    name: str
    cache: str
    rule: str
    misfire_grace_seconds: int
    next_run_at: datetime
    due_at: datetime
    failures: int
    is_running: bool
    is_retried: bool
    """Whether its last run failed or was interrupted; the next one may then be late."""

    def is_of(self, cache: str, rule: str) -> bool:
        """Whether the target still has this cache and this rule."""
        return (self.cache, self.rule) == (cache, rule)

    def is_misfired(self, now: datetime) -> bool:
        """Whether it is too late for the run."""
        late = now - self.next_run_at
        return late > timedelta(seconds=self.misfire_grace_seconds) and not self.is_retried


class Trouble(StrEnum):
    """What may be wrong with a target."""

    FAILED = "failed"
    """Its last attempt did."""
    NOT_RUN = "not run"
    """It ought to have run, and never has."""
    NEVER_DONE = "never done"
    """It has run, and never succeeded."""
    OVERDUE = "overdue"


class TargetStatus(msgspec.Struct, frozen=True):
    """The status of a target. Its JSON names are stable."""

    name: str
    target: str | None
    """The name of its cache; None before its first run."""
    rule: str
    next_run_at: datetime
    """When its next run begins."""
    due_at: datetime
    """The same, but a run that was skipped leaves it in the past."""
    misfire_grace_seconds: int
    """If the next run is later than this, the target is overdue."""
    running_since: datetime | None
    last_status: str | None
    """`done`, `failed` or `interrupted`; None if there was no attempt yet."""
    last_finished_at: datetime | None
    last_run: int | None
    """Its number; None if it failed before there was one."""
    problem: str | None
    """Why the last attempt failed."""
    failures: int
    """Failed attempts in a row."""
    last_success_at: datetime | None
    """When a run on its cache last succeeded, whoever started it."""
    rate_limit_remaining: int | None
    """Requests that the REST API still allows the token, as last reported."""

    @property
    def starts_with_the_service(self) -> bool:
        """Whether its first run begins as soon as the service starts."""
        return not self.rule.startswith("cron ")

    def is_overdue(self, now: datetime) -> bool:
        """Whether a run should have begun and did not."""
        return now > self.due_at + timedelta(seconds=self.misfire_grace_seconds)

    def trouble(self, now: datetime) -> Trouble | None:
        """Return what is wrong with the target, if anything."""
        if self.last_status == "failed":
            return Trouble.FAILED
        if self.last_status is None and (self.starts_with_the_service or now >= self.due_at):
            return Trouble.NOT_RUN
        if self.last_status and self.last_success_at is None:
            return Trouble.NEVER_DONE
        return Trouble.OVERDUE if self.is_overdue(now) else None


def load_schedule(connection: Connection) -> dict[str, Scheduled]:
    """Return when each target runs next, by name."""
    return {row.name: _scheduled(row) for row in connection.execute(select(SCHEDULED))}


def load_scheduled(connection: Connection, name: str) -> Scheduled | None:
    """Return when one target runs next; None if it is not scheduled."""
    row = connection.execute(select(SCHEDULED).where(SCHEDULED.c.name == name)).first()
    return _scheduled(row) if row else None


def _scheduled(row: Row[tuple[object, ...]]) -> Scheduled:
    return Scheduled(
        name=row.name,
        cache=row.cache,
        rule=row.rule,
        misfire_grace_seconds=row.misfire_grace_seconds,
        next_run_at=row.next_run_at,
        due_at=row.due_at,
        failures=row.failures,
        is_running=row.running_since is not None,
        is_retried=row.failures > 0 or row.status == "interrupted",
    )


def lock_schedule(connection: Connection) -> None:
    """Keep others from changing the schedule until this transaction ends: workers claim targets."""
    lock_table(connection, SCHEDULED)


def forget_other_targets(connection: Connection, caches: Mapping[str, str]) -> None:
    """Delete the targets that are not configured, or have another cache than in `caches`."""
    known = connection.execute(select(SCHEDULED.c.name, SCHEDULED.c.cache)).all()
    others = [{"other": row.name} for row in known if caches.get(row.name) != row.cache]
    execute_each(connection, _FORGET, others)
    move_ended(connection, [row.name for row in known if row.name not in caches])


class NextRun(msgspec.Struct, frozen=True):
    """When a target runs next, by which rule, and its place in the configuration."""

    name: str
    position: int
    cache: str
    rule: str
    misfire_grace: timedelta
    at: datetime


def save_next_runs(connection: Connection, targets: Iterable[NextRun]) -> None:
    """Record when targets run next; the results of their attempts stay."""
    rows = [
        {
            "name": one.name,
            "position": one.position,
            "cache": one.cache,
            "rule": one.rule,
            "misfire_grace_seconds": int(one.misfire_grace.total_seconds()),
            "next_run_at": one.at,
            "due_at": one.at,
            "failures": 0,
        }
        for one in targets
    ]
    execute_each(connection, _SAVE, rows)


class Claim(msgspec.Struct, frozen=True):
    """What an attempt claims: a target at the time at which it is due."""

    name: str
    cache: str
    due_at: datetime
    """The time of this run, as the schedule has it."""
    next_run_at: datetime
    """The time of the run after this."""


def claim(connection: Connection, claimed: Claim, now: datetime, target: str | None = None) -> bool:
    """Record that a target runs from now on, in the cache of this name, and when it runs next.

    Return whether it is: somebody else may have claimed it, or changed its time.
    """
    values: dict[str, object] = {
        "running_since": now,
        "next_run_at": claimed.next_run_at,
        "due_at": claimed.next_run_at,
    }
    if target:
        values["target"] = target
    is_free = and_(SCHEDULED.c.running_since.is_(None), SCHEDULED.c.next_run_at == claimed.due_at)
    done = connection.execute(
        update(SCHEDULED).where(_is(claimed.name, claimed.cache), is_free).values(values)
    )
    return done.rowcount == 1


def caches_running(connection: Connection, *, only_without_lease: bool = False) -> set[str]:
    """Return the names of the caches on which attempts are recorded as running."""
    query = select(SCHEDULED.c.target).where(SCHEDULED.c.running_since.is_not(None))
    if only_without_lease:
        query = query.where(~_HAS_LEASE)
    return {name for name in connection.scalars(query) if name}


def end_killed_attempts(connection: Connection, now: datetime) -> set[str]:
    """Record attempts that seem to be running as killed, which is a failure; return their targets.

    On a server, only those whose lease is free: others may be at work on another machine. Their
    runs, if they had begun, must be recorded as killed already.
    """
    run = (
        select(func.min(RUN.c.id))
        .join(TARGET, TARGET.c.id == RUN.c.target_id)
        .where(
            RUN.c.status == "killed",
            RUN.c.started_at >= SCHEDULED.c.running_since,
            or_(SCHEDULED.c.target.is_(None), SCHEDULED.c.target == TARGET.c.name),
        )
        .scalar_subquery()
    )
    is_over = ~_HAS_LEASE if is_shared(connection) else true()
    killed = connection.execute(
        update(SCHEDULED)
        .where(SCHEDULED.c.running_since.is_not(None), is_over)
        .values(
            running_since=None,
            finished_at=now,
            status="failed",
            problem="the process was killed during the run",
            run_id=run,
            failures=SCHEDULED.c.failures + 1,
        )
        .returning(SCHEDULED.c.name)
    )
    names = set(killed.scalars())
    count_ended(connection, sorted(names), "failed")
    return names


class AttemptResult(msgspec.Struct, frozen=True):
    """How an attempt at a run ended."""

    status: str
    target: str | None = None
    run: int | None = None
    problem: str | None = None
    rate_limit_remaining: int | None = None


class Released(msgspec.Struct, frozen=True):
    """A target after its run."""

    failures: int
    next_run_at: datetime


def release(
    connection: Connection,
    claimed: Claim,
    result: AttemptResult,
    since: datetime,
    now: datetime,
) -> Released | None:
    """Record the result of an attempt that began at `since`.

    Return None if it is not the target's any more: the target has another cache, or the attempt
    was held for killed.
    """
    failed = result.status == "failed"
    values: dict[str, object] = {
        "running_since": None,
        "finished_at": now,
        "status": result.status,
        "problem": result.problem,
        "run_id": result.run,
        "rate_limit_remaining": result.rate_limit_remaining,
    }
    if result.target:
        values["target"] = result.target
    if result.status == "done":
        values["failures"] = 0
    row = connection.execute(
        update(SCHEDULED)
        .where(_is(claimed.name, claimed.cache), SCHEDULED.c.running_since == since)
        .values(values | ({"failures": SCHEDULED.c.failures + 1} if failed else {}))
        .returning(SCHEDULED.c.failures, SCHEDULED.c.next_run_at)
    ).first()
    if row is None:
        return None
    count_ended(connection, [claimed.name], result.status)
    return Released(row.failures, row.next_run_at)


def reschedule(connection: Connection, name: str, cache: str, until: datetime) -> None:
    """Record another time for the next run."""
    values = {"next_run_at": until, "due_at": until}
    connection.execute(update(SCHEDULED).where(_is(name, cache)).values(values))


def skip(connection: Connection, name: str, cache: str, until: datetime) -> None:
    """Record that a run is skipped: the target stays overdue until the next one."""
    connection.execute(update(SCHEDULED).where(_is(name, cache)).values(next_run_at=until))


def _is(name: str, cache: str) -> ColumnElement[bool]:
    """Match a target, unless it was given another cache during its run."""
    return and_(SCHEDULED.c.name == name, SCHEDULED.c.cache == cache)


_HAS_LEASE = exists().where(LEASE.c.name == SCHEDULED.c.target, LEASE.c.expires_at > database_now())
_FORGET = delete(SCHEDULED).where(SCHEDULED.c.name == bindparam("other"))
_SAVE = insert_or_update(
    SCHEDULED,
    ["name"],
    ("position", "rule", "misfire_grace_seconds", "next_run_at", "due_at"),
)


def load_statuses(
    connection: Connection, *, name: str | None = None, cache: str | None = None
) -> list[TargetStatus]:
    """Return the status of all targets, in the order of the configuration.

    With a name, only that of this target; with the name of a cache, only those of its targets.
    """
    statement = STATUSES
    if name is not None:
        statement = statement.where(SCHEDULED.c.name == name)
    if cache is not None:
        statement = statement.where(SCHEDULED.c.target == cache)
    return [read_status(row) for row in connection.execute(statement)]


def read_status(row: Row[Any]) -> TargetStatus:
    """Return the status in a row that also has the time of the last success."""
    return TargetStatus(
        name=row.name,
        target=row.target,
        rule=row.rule,
        next_run_at=row.next_run_at,
        due_at=row.due_at,
        misfire_grace_seconds=row.misfire_grace_seconds,
        running_since=row.running_since,
        last_status=row.status,
        last_finished_at=row.finished_at,
        last_run=row.run_id,
        problem=row.problem,
        failures=row.failures,
        last_success_at=row.success_at,
        rate_limit_remaining=row.rate_limit_remaining,
    )


def last_reported_run(connection: Connection, target: str | None) -> int | None:
    """Return the number of the last run on a cache that succeeded; else the last with a report."""
    return connection.execute(
        select(RUN.c.id)
        .join(TARGET, TARGET.c.id == RUN.c.target_id)
        .where(TARGET.c.name == target, RUN.c.report.is_not(None))
        .order_by((RUN.c.status == "done").desc(), RUN.c.id.desc())
        .limit(1)
    ).scalar()


STATUSES = (
    select(SCHEDULED, SUMMARY.c.succeeded_at.label("success_at"))
    .outerjoin(TARGET, TARGET.c.name == SCHEDULED.c.target)
    .outerjoin(SUMMARY, SUMMARY.c.target_id == TARGET.c.id)
    .order_by(SCHEDULED.c.position, SCHEDULED.c.name)
)
"""The rows that `read_status` reads, with those of the summaries beside them."""
