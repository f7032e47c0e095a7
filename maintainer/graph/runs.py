"""Runs: what each one decided, did and reported, and what it recorded in the graph."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from maintainer import __version__
from maintainer.cacheconfig import BlobKey
from maintainer.decoding import decode_json
from maintainer.graph.columns import to_number, to_text
from maintainer.graph.dialect import is_shared
from maintainer.graph.generations import record_generations
from maintainer.graph.memory import note_marked, note_up_to_date
from maintainer.graph.record import forget_generations, mark_missing, restart_clocks
from maintainer.graph.reports import REPORTS, Fields, load_content
from maintainer.graph.rows import execute_each, execute_rows
from maintainer.graph.summaries import save_summary
from maintainer.graph.tables import (
    ACTION,
    BLOB,
    ENTRY,
    ENTRY_OF_GENERATION,
    GENERATION,
    KEEP,
    REF,
    RUN,
    TARGET,
)
from maintainer.graph.trends import save_states
from maintainer.graph.values import this_process
from maintainer.graph.written import note_written
from maintainer.model.decision import Deletion, Plan, RewriteResult
from maintainer.model.marks import Marks, State
from maintainer.model.outcome import AlreadyGone
from maintainer.model.reason import Grace, code_of
from maintainer.report import Report

_REMEMBERED_FOR = timedelta(days=90)
_RUNS = 10_000
"""At most this many runs of a target are remembered."""


def end_killed_runs(connection: Connection, target_id: int, now: datetime) -> None:
    """Record that runs still `running` were killed; only the holder of the lock can know that.

    Whoever holds the lock of a file knows it of all targets, otherwise only of this one.
    """
    if is_shared(connection):
        connection.execute(_END_KILLED_ON_TARGET, {"now": now, "target": target_id})
    else:
        connection.execute(_END_KILLED, {"now": now})


def targets_running(connection: Connection) -> dict[int, str]:
    """Return the names of the targets with a run that is `running`, whether or not it still is."""
    return {row.id: row.name for row in connection.execute(_RUNNING)}


_MOMENT = timedelta(microseconds=1)


def load_listed_at(connection: Connection, target_id: int) -> datetime | None:
    """Return when the entries were last listed, if ever."""
    last: datetime | None = connection.scalar(_LISTED_AT, {"target": target_id})
    return last


def next_moment(
    connection: Connection, target_id: int, now: datetime, listed_at: datetime | None
) -> datetime:
    """Return the first moment from now on that is not the time of an earlier list of entries.

    They were last listed at `listed_at`.
    """
    here = {"target": target_id}
    while now == listed_at or connection.execute(_HAS_GONE, here | {"at": now}).scalar_one():
        now += _MOMENT
    return now


def begin_run(connection: Connection, target_id: int, now: datetime, *, dry_run: bool) -> int:
    """Add a run, while holding the lock."""
    end_killed_runs(connection, target_id, now)
    values = {
        "target_id": target_id,
        "started_at": now,
        "version": __version__,
        "process": this_process(),
        "dry_run": dry_run,
        "status": "running",
    }
    added = connection.execute(_BEGIN, values)
    return int(added.scalar_one())


def forget_run(connection: Connection, run: int) -> bool:
    """Remove a run and its target, if it was the first; return whether it was."""
    target_id = connection.execute(_TARGET_OF_FIRST, {"run": run}).scalar()
    if target_id is None:
        return False
    connection.execute(_FORGET_RUN, {"run": run})
    connection.execute(_FORGET_TARGET, {"target": target_id})
    return True


def note_read(connection: Connection, run: int, indexes: int) -> None:
    """Count indexes that a run has read. Requests do not tell: blobs are downloaded, too."""
    if indexes:
        connection.execute(_READ, {"run": run, "more": indexes})


def save_marks(connection: Connection, target_id: int, marks: Marks, plan: Plan) -> None:
    """Record the state of each entry, its reason, and since when it is unreferenced.

    If not all was read, what looks unreferenced may not be, so no clock starts; but one that runs
    restarts where something was needed since. A complete index supersedes its older generations,
    whatever else was not read.
    """
    up_to_date = set(plan.up_to_date)
    decided = {keep.store_id: keep.reason for keep in plan.keeps if keep.store_id is not None}
    # That it is another tool's is no reason to delete an entry.
    decided |= {
        delete.entry.store_id: delete.reason
        for delete in plan.deletes
        if delete.state is State.FOREIGN
    }
    rows = []
    for marked in marks.marks:
        entry = marked.entry
        certain = marks.certain or (marked.state is State.SUPERSEDED and marked.index in up_to_date)
        since = None
        if marked.state is State.UNREADABLE:
            since = entry.unreferenced_since  # It belongs to the runs that can read the ref.
        elif marked.state in (State.DANGLING, State.SUPERSEDED):
            since = marked.since if certain or entry.unreferenced_since else None
        row = (marked.state.value, decided.get(entry.store_id, marked.reason), since)
        if row != (entry.state, entry.reason, entry.unreferenced_since):
            state, reason, since = row
            number = None if since is None else to_number(since)
            where = target_id, entry.store_id
            rows.append((state, number, code_of(reason), to_text(reason), *where))
    execute_rows(connection, _MARK, rows)


def save_index_marks(connection: Connection, target_id: int, marks: Marks, plan: Plan) -> None:
    """Record the contents of the indexes, once all entries are marked and saved."""
    up_to_date = set(plan.up_to_date)
    if marks.certain:
        note_marked(connection, target_id, (one.id for one in marks.indexes), marks.snapshot.now)
    for index in marks.indexes:
        if index.id in up_to_date and index.newest:
            note_up_to_date(connection, index.newest.generation_id, marks.snapshot.now)


def note_blocked(
    connection: Connection, target_id: int, now: datetime, *, blocked: bool, for_good: bool
) -> datetime | None:
    """Return since when no run could delete blobs, if that is so; remember it for good if asked to.

    A run that was not to delete any shows only that it would have been blocked, too.
    """
    since = connection.execute(_BLOCKED_SINCE, {"target": target_id}).scalar_one()
    since = (since or now) if blocked else None
    if blocked or for_good:
        connection.execute(_BLOCK, {"target": target_id, "since": since})
    return since


def save_rewritten(
    connection: Connection,
    target_id: int,
    rewritten: RewriteResult,
    merged: Iterable[int],
    *,
    now: datetime,
    grace: timedelta,
) -> None:
    """Record what was written, what builds wrote concurrently, and what both supersede.

    `merged` are the generations that were merged or replaced: builders no longer read them, and
    their grace period begins.
    """
    kept = Grace(State.SUPERSEDED, now, now + grace)
    concurrent = record_generations(connection, target_id, rewritten.concurrent, now).ids
    mark_missing(connection, target_id, rewritten.missing, now)
    written: tuple[int, ...] = ()
    if rewritten.written:
        note_written(connection, target_id, rewritten.entries, now)
        written = record_generations(connection, target_id, [rewritten.written], now).ids
    if rewritten.index.is_named:
        # A tag leads to one generation: the last of these.
        replaced = {*merged, *concurrent} - {*(written or concurrent[-1:] or merged)}
        _start_clocks(connection, target_id, replaced, kept, of_manifests=True)
        restart_clocks(connection, target_id, replaced.intersection(concurrent))
        forget_generations(connection, replaced)
    elif written:
        _start_clocks(connection, target_id, {*merged, *concurrent} - {*written}, kept)
    if written:
        note_up_to_date(connection, written[-1], now)


def _start_clocks(
    connection: Connection,
    target_id: int,
    generations: Iterable[int],
    kept: Grace,
    *,
    of_manifests: bool = False,
) -> None:
    """Record that builders no longer read these generations, unless already recorded."""
    shared = {"target": target_id, "now": kept.since, "code": code_of(kept), "all": kept}
    rows = [{"row": number, **shared} for number in sorted(generations)]
    execute_each(connection, _START_CLOCK_OF_MANIFEST if of_manifests else _START_CLOCK, rows)


def save_swept(
    connection: Connection, target_id: int, swept: Sequence[Deletion], now: datetime
) -> None:
    """Remember what is gone."""
    gone = [
        {
            "target": target_id,
            "at": one.delete.entry.store_id,
            "code": code_of(one.delete.reason),
            "all": one.delete.reason,
            "now": now,
        }
        for one in swept
        if one.is_gone
    ]
    if not gone:
        return
    connection.execute(_DELETE, gone)
    _note_missing_blobs(connection, target_id, swept, now)
    connection.execute(_DELETE_GENERATIONS, {"target": target_id, "now": now})


def _note_missing_blobs(
    connection: Connection, target_id: int, swept: Iterable[Deletion], now: datetime
) -> None:
    """Record which blobs are gone, so that no run looks up what it deleted itself."""
    keys = (one.delete.entry.parsed for one in swept if one.is_gone)
    deleted = {key.digest for key in keys if isinstance(key, BlobKey)}
    rows = [{"target": target_id, "blob": digest, "now": now} for digest in sorted(deleted)]
    execute_each(connection, _MISS_BLOB, rows)


def finish_run(connection: Connection, report: Report) -> None:
    """Store the report of a run, without its actions: the graph has them."""
    _finish(connection, report, {"report": _encode(report)})


def finish_idle_run(connection: Connection, report: Report, same_as: int) -> None:
    """Store what the report of an idle run has that the one which it repeats has not."""
    last = decode_json(load_content(connection, same_as) or b"{}", Fields)
    new = decode_json(_encode(report), Fields)
    changed = {name: value for name, value in new.items() if last.get(name) != value}
    more = {"report": msgspec.json.encode(changed), "same_as": same_as, "has_plan": True}
    _finish(connection, report, more)


def _encode(report: Report) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(report, actions=()))


def _finish(connection: Connection, report: Report, more: Mapping[str, object]) -> None:
    save_states(connection, report)
    connection.execute(
        _FINISH.values(
            finished_at=report.finished_at,
            status=report.status,
            entries=sum(total.entries for total in report.entries),
            indexes_written=report.indexes_written,
            entries_deleted=report.entries_deleted,
            bytes_freed=report.bytes_freed,
            blobs_missing=report.blobs_missing,
            requests=report.requests.total,
            # Without a runtime token a run cannot know.
            results_usable=report.results_usable if report.readable else None,
            **more,
        ),
        {"run": report.run},
    )
    save_summary(connection, report)
    _forget_runs(connection, report)


def _forget_runs(connection: Connection, report: Report) -> None:
    """Drop old runs, and everything but the counts of runs that changed nothing.

    A service may run every few seconds; the file must not grow without limit.
    """
    asked: dict[str, object] = {"run": report.run, "reports": REPORTS}
    too_old = {"before": report.started_at - _REMEMBERED_FOR, "runs": _RUNS}
    connection.execute(_FORGET_RUNS, asked | too_old)
    dull = [{"row": number} for number in connection.scalars(_DULL, asked)]
    execute_each(connection, _DROP_ACTIONS, dull)
    execute_each(connection, _DROP_REPORT, dull)
    connection.execute(_FORGET_KEEPS, {"run": report.run})


_target: BindParameter[int] = bindparam("target")
_run: BindParameter[int] = bindparam("run")
_row: BindParameter[int] = bindparam("row")
_now: BindParameter[datetime] = bindparam("now")
_at: BindParameter[int] = bindparam("at")
_reason: dict[str, BindParameter[Any]] = {"reason": bindparam("code"), "facts": bindparam("all")}

_END_KILLED = update(RUN).where(RUN.c.status == "running").values(status="killed", finished_at=_now)
_END_KILLED_ON_TARGET = _END_KILLED.where(RUN.c.target_id == _target)
_RUNNING = (
    select(TARGET.c.id, TARGET.c.name)
    .join(RUN, RUN.c.target_id == TARGET.c.id)
    .where(RUN.c.status == "running")
    .distinct()
    .order_by(TARGET.c.id)
)
_LISTED_AT = select(TARGET.c.listed_at).where(TARGET.c.id == _target)
_HAS_GONE = select(
    exists().where(ENTRY.c.target_id == _target, ENTRY.c.missing_since == bindparam("at"))
)
_BEGIN = insert(RUN).returning(RUN.c.id)
_OTHER = RUN.alias("other")
_TARGET_OF_FIRST = select(RUN.c.target_id).where(
    RUN.c.id == bindparam("run"),
    ~exists().where(_OTHER.c.target_id == RUN.c.target_id, _OTHER.c.id != RUN.c.id),
)
_FORGET_RUN = delete(RUN).where(RUN.c.id == bindparam("run"))
_FORGET_TARGET = delete(TARGET).where(TARGET.c.id == bindparam("target"))

_entry = update(ENTRY).where(ENTRY.c.target_id == _target, ENTRY.c.store_id == _at)
_MARK = """
    UPDATE entry SET state = ?, unreferenced_since = ?, reason = ?, facts = ?
    WHERE target_id = ? AND store_id = ?
"""
_DELETE = _entry.values(**_reason, state="deleted", missing_since=_now)
_DELETE_GENERATIONS = (
    update(GENERATION)
    .where(
        GENERATION.c.target_id == _target,
        exists().where(ENTRY_OF_GENERATION, ENTRY.c.missing_since == _now),
    )
    .values(missing_since=_now)
)
_START_CLOCK = (
    update(ENTRY)
    .where(
        ENTRY.c.target_id == _target,
        ENTRY.c.store_id
        == select(GENERATION.c.store_id).where(GENERATION.c.id == _row).scalar_subquery(),
        ENTRY.c.unreferenced_since.is_(None),
        ENTRY.c.missing_since.is_(None),
    )
    .values(**_reason, unreferenced_since=_now, state=State.SUPERSEDED.value)
)
_START_CLOCK_OF_MANIFEST = (
    update(ENTRY)
    .where(
        ENTRY.c.target_id == _target,
        ENTRY.c.kind == "blob",
        ENTRY.c.digest
        == select(GENERATION.c.location).where(GENERATION.c.id == _row).scalar_subquery(),
        # Something else may need it, too.
        ENTRY.c.state != State.REACHABLE.value,
    )
    .values(**_reason, unreferenced_since=_now, state=State.SUPERSEDED.value)
)
_MISS_BLOB = (
    update(BLOB)
    .where(
        BLOB.c.target_id == _target,
        BLOB.c.digest == bindparam("blob"),
        BLOB.c.missing_since.is_(None),
        ~exists().where(
            ENTRY.c.target_id == _target,
            ENTRY.c.kind == "blob",
            ENTRY.c.digest == BLOB.c.digest,
            ENTRY.c.missing_since.is_(None),
            ENTRY.c.content_missing_since.is_(None),
            REF.c.id == ENTRY.c.ref_id,
            REF.c.readable,
        ),
    )
    .values(missing_since=_now)
)
_BLOCKED_SINCE = select(TARGET.c.blocked_since).where(TARGET.c.id == _target)
_BLOCK = update(TARGET).where(TARGET.c.id == _target).values(blocked_since=bindparam("since"))

_READ = (
    update(RUN)
    .where(RUN.c.id == _run)
    .values(indexes_read=RUN.c.indexes_read + bindparam("more", type_=RUN.c.indexes_read.type))
)
_FINISH = update(RUN).where(RUN.c.id == _run)
_this_target = select(RUN.c.target_id).where(RUN.c.id == _run).scalar_subquery()
_of_target = RUN.c.target_id == _this_target
_runs = select(RUN.c.id).where(_of_target).order_by(RUN.c.id.desc())
_newest = _runs.limit(bindparam("reports"))
_repeated = select(RUN.c.same_as).where(RUN.c.id.in_(_newest), RUN.c.same_as.is_not(None))
_FORGET_RUNS = delete(RUN).where(
    _of_target,
    or_(RUN.c.started_at < bindparam("before"), RUN.c.id.in_(_runs.offset(bindparam("runs")))),
    RUN.c.id.not_in(_repeated),
)
_DULL = select(RUN.c.id).where(
    _of_target,
    RUN.c.id.not_in(_newest),
    RUN.c.id.not_in(_repeated),
    RUN.c.report.is_not(None),
    RUN.c.status == "done",
    RUN.c.indexes_written == 0,
    RUN.c.entries_deleted == 0,
    # `why` says which run came to an entry that was gone.
    ~exists().where(ACTION.c.run_id == RUN.c.id, ACTION.c.outcome == code_of(AlreadyGone())),
)
_DROP_ACTIONS = delete(ACTION).where(ACTION.c.run_id == _row)
_DROP_REPORT = update(RUN).where(RUN.c.id == _row).values(report=None, has_plan=False)
_FORGET_KEEPS = delete(KEEP).where(
    KEEP.c.target_id == _this_target,
    KEEP.c.last_run.is_not(None),
    ~exists().where(
        _of_target, RUN.c.has_plan, RUN.c.id.between(KEEP.c.first_run, KEEP.c.last_run)
    ),
)
