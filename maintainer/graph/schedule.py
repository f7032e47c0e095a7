"""Which targets a service looks after, when they run, and how that has been going."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert as upsert

from maintainer.graph.models import RunRow, ScheduledRow, ScheduleRow, Target
from maintainer.report.words import say_count


class Due(msgspec.Struct, frozen=True):
    """When a target runs, as it was when the service last ran."""

    rule: str
    misfire_grace_seconds: int
    next_run_at: datetime
    """Whichever is earlier: what APScheduler says, or a run that was to begin and did not."""
    failures: int
    is_running: bool
    was_interrupted: bool
    """Whether the service ended during its last run."""


class TargetStatus(msgspec.Struct, frozen=True):
    """How a target is doing. Its JSON names are stable."""

    name: str
    target: str | None
    """The name of its cache; None before its first run."""
    rule: str
    next_run_at: datetime | None
    due_at: datetime
    """When the next attempt was to begin; unlike `next_run_at` it stays, if none begins."""
    late_after_seconds: int
    """So late it may begin; then it is overdue."""
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
    last_good_at: datetime | None
    """When a run on its cache last ended well, whoever ran it."""
    rate_limit_remaining: int | None
    """Requests that the REST API still allows the token, when last told."""

    @property
    def waits_for_its_time(self) -> bool:
        """Whether its first run begins at a time of its own, rather than with the service."""
        return self.rule.startswith("cron ")

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether a run that was to begin has not."""
        return now > self.due_at + timedelta(seconds=self.late_after_seconds)

    def complaint(self, now: datetime) -> str | None:
        """Say what is wrong, if it is."""
        if self.last_status == "failed":
            if self.failures > 1:
                failed = f"{say_count(self.failures, 'attempt')} in a row failed"
                return f"{failed}, the last one because: {self.problem}"
            return f"the last attempt failed: {self.problem}"
        if self.last_status is None and not (self.waits_for_its_time and now < self.due_at):
            return "it has not run yet"
        if self.last_status and self.last_good_at is None:
            return "no run has ended well yet"
        if self.is_overdue(now):
            return f"its run is overdue since {self.due_at:%Y-%m-%d %H:%M:%S} UTC"
        return None


def load_due(connection: Connection) -> dict[str, Due]:
    """Give for each target that is scheduled when it runs."""
    rows = connection.execute(
        select(ScheduledRow, ScheduleRow.next_run_time).join(
            ScheduleRow, ScheduleRow.id == ScheduledRow.name
        )
    )
    return {
        row.name: Due(
            rule=row.rule,
            misfire_grace_seconds=row.misfire_grace_seconds,
            next_run_at=min(row.due_at, _time(row.next_run_time) or row.due_at),
            failures=row.failures,
            is_running=row.running_since is not None,
            was_interrupted=row.status == "interrupted",
        )
        for row in rows
    }


def forget_jobs(connection: Connection) -> None:
    """Throw away what APScheduler has pickled: this file may come from anywhere."""
    connection.execute(delete(ScheduleRow))


def keep_targets(connection: Connection, caches: Mapping[str, str]) -> None:
    """Forget the targets that are configured no more, or for another cache than by `caches`."""
    target = tuple_(ScheduledRow.name, ScheduledRow.cache)
    connection.execute(delete(ScheduledRow).where(target.not_in(list(caches.items()))))


def save_target(
    connection: Connection,
    name: str,
    *,
    position: int,
    cache: str,
    rule: str,
    misfire_grace: timedelta,
    due_at: datetime,
) -> None:
    """Write down when a target runs; how its attempts went is kept."""
    values = {
        "position": position,
        "rule": rule,
        "misfire_grace_seconds": int(misfire_grace.total_seconds()),
        "due_at": due_at,
    }
    connection.execute(
        upsert(ScheduledRow)
        .values(values | {"name": name, "cache": cache, "failures": 0})
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )


def begin_attempt(
    connection: Connection, name: str, cache: str, now: datetime, next_due_at: datetime | None
) -> None:
    """Write down that a run begins, and when the one after it is due."""
    values = {"running_since": now} | ({"due_at": next_due_at} if next_due_at else {})
    connection.execute(update(ScheduledRow).where(_is(name, cache)).values(values))


def end_killed_attempts(connection: Connection, now: datetime) -> set[str]:
    """Write down that what seems to be running was killed, and so has failed; give the names.

    Its run, if it came to one, must have been found killed before.
    """
    run = (
        select(func.min(RunRow.id))
        .join(Target, Target.id == RunRow.target_id)
        .where(
            RunRow.status == "killed",
            RunRow.started_at >= ScheduledRow.running_since,
            or_(ScheduledRow.target.is_(None), ScheduledRow.target == Target.name),
        )
        .scalar_subquery()
    )
    killed = connection.execute(
        update(ScheduledRow)
        .where(ScheduledRow.running_since.is_not(None))
        .values(
            running_since=None,
            finished_at=now,
            status="failed",
            problem="the process was killed during the run",
            run_id=run,
            failures=ScheduledRow.failures + 1,
        )
        .returning(ScheduledRow.name)
    )
    return set(killed.scalars())


class Outcome(msgspec.Struct, frozen=True):
    """What came of an attempt."""

    status: str
    target: str | None = None
    run: int | None = None
    problem: str | None = None
    rate_limit_remaining: int | None = None


def end_attempt(
    connection: Connection, name: str, cache: str, outcome: Outcome, now: datetime
) -> int | None:
    """Write down what came of a run; give how many have failed in a row.

    None if there is no such target any more.
    """
    failed = outcome.status == "failed"
    values: dict[str, object] = {
        "running_since": None,
        "finished_at": now,
        "status": outcome.status,
        "problem": outcome.problem,
        "run_id": outcome.run,
        "rate_limit_remaining": outcome.rate_limit_remaining,
    }
    if outcome.target:
        values["target"] = outcome.target
    if outcome.status == "done":
        values["failures"] = 0
    row = connection.execute(
        update(ScheduledRow)
        .where(_is(name, cache))
        .values(values | ({"failures": ScheduledRow.failures + 1} if failed else {}))
        .returning(ScheduledRow.failures)
    ).first()
    return row.failures if row else None


def put_off(connection: Connection, name: str, cache: str, until: datetime) -> None:
    """Write down that the next attempt is due at another time."""
    connection.execute(update(ScheduledRow).where(_is(name, cache)).values(due_at=until))


def _is(name: str, cache: str) -> ColumnElement[bool]:
    """Hold for a target, unless it was given another cache while this one's run went on."""
    return and_(ScheduledRow.name == name, ScheduledRow.cache == cache)


def load_statuses(connection: Connection) -> list[TargetStatus]:
    """Tell how all targets are doing, in the order of the configuration."""
    good = (
        select(Target.name, func.max(RunRow.finished_at).label("at"))
        .join(Target, Target.id == RunRow.target_id)
        .where(RunRow.status == "done", RunRow.dry_run.is_(False))
        .group_by(Target.name)
        .subquery()
    )
    rows = connection.execute(
        select(ScheduledRow, ScheduleRow.next_run_time, good.c.at.label("good_at"))
        .join(ScheduleRow, ScheduleRow.id == ScheduledRow.name, isouter=True)
        .join(good, good.c.name == ScheduledRow.target, isouter=True)
        .order_by(ScheduledRow.position, ScheduledRow.name)
    )
    return [
        TargetStatus(
            name=row.name,
            target=row.target,
            rule=row.rule,
            next_run_at=_time(row.next_run_time),
            due_at=row.due_at,
            late_after_seconds=row.misfire_grace_seconds,
            running_since=row.running_since,
            last_status=row.status,
            last_finished_at=row.finished_at,
            last_run=row.run_id,
            problem=row.problem,
            failures=row.failures,
            last_good_at=row.good_at,
            rate_limit_remaining=row.rate_limit_remaining,
        )
        for row in rows
    ]


def last_told_run(connection: Connection, target: str | None) -> int | None:
    """Give the number of the last run on a cache that has left a report."""
    return connection.execute(
        select(func.max(RunRow.id))
        .join(Target, Target.id == RunRow.target_id)
        .where(Target.name == target, RunRow.report.is_not(None))
    ).scalar()


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
