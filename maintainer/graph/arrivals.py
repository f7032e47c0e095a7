"""What arrived in a cache between two runs: what the next run can expect."""

from bisect import bisect_left
from datetime import datetime

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
)

from maintainer.graph.tables import ENTRY, RUN, RUN_STATE
from maintainer.graph.written import written_by_runs
from maintainer.policy.headroom import INTERVALS

_RUNS = 4 * INTERVALS
"""So many runs are looked at; some of them may be dry runs."""


def is_complete(run: FromClause) -> ColumnElement[bool]:
    """Return whether a run of a table, or of an alias of it, is done and has seen everything.

    One that its budget ended before it had a plan is done, too. Old runs have no plan any more.
    """
    return and_(run.c.status == "done", or_(run.c.has_plan, run.c.results_usable.is_not(None)))


def load_arrivals(
    connection: Connection, target_id: int, run: int, until: datetime
) -> tuple[int, ...]:
    """Return the bytes that others stored in each interval between two runs, the last of which ends
    with this run; only what a run has seen, until this time.

    Dry runs end no interval, as they delete nothing. What a run saw that ended without a plan
    belongs to the interval that the next one ends.
    """
    here = {"target": target_id, "run": run}
    runs = connection.execute(_LAST_RUNS, here | {"most": _RUNS + 1}).all()[::-1]
    if len(runs) < 2:  # noqa: PLR2004 - the two ends of an interval
        return ()
    ends = [one.finished_at for one in runs[:-1]]
    found = connection.execute(_FOUND, here | {"since": ends[0], "until": until})
    sizes = [0] * len(runs)
    for first_seen_at, size in found:
        sizes[bisect_left(ends, first_seen_at)] += size
    arrived = [0]
    for one, size in zip(runs[1:], sizes[1:], strict=True):
        arrived[-1] += size
        if not one.dry_run and one.id != run:
            arrived.append(0)
    return tuple(arrived)


_target: BindParameter[int] = bindparam("target")
_run: BindParameter[int] = bindparam("run")
HAS_LOOKED = or_(exists().where(RUN_STATE.c.run_id == RUN.c.id), is_complete(RUN))
"""Whether a run knew what is stored: it has states, or the cache was empty.

It is asked run by run: PostgreSQL would read the states of all targets for `IN`.
"""
OURS = written_by_runs(_target)
_LAST_RUNS = (
    select(RUN.c.id, RUN.c.finished_at, RUN.c.dry_run)
    .where(RUN.c.target_id == _target, or_(RUN.c.id == _run, and_(RUN.c.id < _run, HAS_LOOKED)))
    .order_by(RUN.c.id.desc())
    .limit(bindparam("most"))
)
_FOUND = (
    select(ENTRY.c.first_seen_at, func.sum(ENTRY.c.size))
    .where(
        ENTRY.c.target_id == _target,
        ENTRY.c.first_seen_at > bindparam("since"),
        ENTRY.c.first_seen_at <= bindparam("until"),
        ENTRY.c.key.not_in(OURS),
    )
    .group_by(ENTRY.c.first_seen_at)
)
