"""`maintainer serve --once`: run what is due, for those who have a clock of their own."""

import signal
import threading
from contextlib import closing
from datetime import datetime, timedelta

from maintainer.collect import now_utc
from maintainer.graph.schedule import Outcome
from maintainer.scheduler import Rule, Schedule, next_time
from maintainer.serve.runner import Runner
from maintainer.serve.service import STEP_PATIENCE, alone
from maintainer.serve.targets import read_targets
from maintainer.serve.timetable import take_up
from maintainer.settings import Settings

_EARLY = timedelta(minutes=1)


def serve_once(settings: Settings) -> list[Outcome]:
    """Run the targets that are due, one after the other, however late; tell what came of it.

    Raises UsageError if the configuration is wrong, DatabaseError if the database is of no use.
    """
    outcomes = []
    targets = read_targets(settings)
    with alone(settings) as database:
        runner = Runner(database, targets, now_utc)
        schedule = Schedule(settings.database, lambda _: None)
        _listen(runner)
        with closing(schedule):
            take_up(database, schedule, targets.values(), now_utc())
            for target in targets.values():
                due_at = schedule.next_run_at(target.name)
                now = now_utc()
                if due_at is None or due_at > now + _early(target.rule):
                    continue
                schedule.put_off(target.name, _next(target.rule, due_at, now))
                outcomes.append(runner.run(target.name, schedule) or Outcome("interrupted"))
    return outcomes


def _early(rule: Rule) -> timedelta:
    """Tell how much too early a run may be: the clock that calls us is never quite on time."""
    return timedelta(0) if rule.cron else min(_EARLY, rule.interval / 10)


def _next(rule: Rule, due_at: datetime, now: datetime) -> datetime:
    """Tell when it is time again; an interval counts from when it was time, not from now."""
    if rule.cron:
        return next_time(rule, now)
    return due_at + rule.interval * (max(now - due_at, timedelta(0)) // rule.interval + 1)


def _listen(runner: Runner) -> None:
    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # so that a second one ends the process at once
        runner.interrupt(signal.Signals(number).name)
        patience = threading.Timer(STEP_PATIENCE, runner.cut_off)
        patience.daemon = True
        patience.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
