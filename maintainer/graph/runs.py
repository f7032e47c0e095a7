"""Runs: what each one decided, did and reported, and what it recorded in the graph."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, insert, or_, select, update

from maintainer import __version__
from maintainer.cacheconfig import BlobKey
from maintainer.graph.database import this_process
from maintainer.graph.generations import record_generations
from maintainer.graph.memory import note_marked, note_up_to_date
from maintainer.graph.models import (
    ActionRow,
    BlobRow,
    EntryRow,
    GenerationRow,
    KeepRow,
    RefRow,
    RunRow,
    Target,
    reason_columns,
)
from maintainer.graph.record import forget_generations, mark_missing
from maintainer.graph.reports import REPORTS, Fields, load_content
from maintainer.graph.trends import save_states
from maintainer.model.decision import Deletion, Plan, RewriteResult
from maintainer.model.marks import Marks, State
from maintainer.report import Report

_REMEMBERED_FOR = timedelta(days=90)
_RUNS = 10_000
"""At most this many runs of a target are remembered."""


def end_killed_runs(connection: Connection, now: datetime) -> None:
    """Record that runs still `running` were killed; only the holder of the lock can know that."""
    connection.execute(
        update(RunRow).where(RunRow.status == "running").values(status="killed", finished_at=now)
    )


_MOMENT = timedelta(microseconds=1)


def next_moment(connection: Connection, target_id: int, now: datetime) -> datetime:
    """Return the first moment from now on that is not the time of an earlier list of entries."""
    last = connection.execute(select(Target.listed_at).where(Target.id == target_id)).scalar_one()
    gone = exists().where(
        EntryRow.target_id == target_id, EntryRow.missing_since == bindparam("at")
    )
    while now == last or connection.execute(select(gone), {"at": now}).scalar_one():
        now += _MOMENT
    return now


def begin_run(connection: Connection, target_id: int, now: datetime, *, dry_run: bool) -> int:
    """Add a run, while holding the lock."""
    end_killed_runs(connection, now)
    values = {
        "target_id": target_id,
        "started_at": now,
        "version": __version__,
        "process": this_process(),
        "dry_run": dry_run,
        "status": "running",
    }
    return connection.execute(insert(RunRow).values(values).returning(RunRow.id)).scalar_one()


def save_marks(connection: Connection, target_id: int, marks: Marks, plan: Plan) -> None:
    """Record the state of each entry, its reason, and since when it is unreferenced.

    If not all was read, what looks unreferenced may not be, so no clock starts; but one that runs
    restarts where something was needed since. A complete index supersedes its older generations,
    whatever else was not read.
    """
    up_to_date = set(plan.up_to_date)
    kept = {keep.store_id: keep.reason for keep in plan.keeps if keep.store_id is not None}
    rows = []
    for marked in marks.marks:
        entry = marked.entry
        unreferenced = marked.state in (State.DANGLING, State.SUPERSEDED)
        certain = marks.certain or (marked.state is State.SUPERSEDED and marked.index in up_to_date)
        since = marked.since if certain or entry.unreferenced_since else None
        row = (
            marked.state.value,
            kept.get(entry.store_id, marked.reason),
            since if unreferenced else None,
        )
        if row != (entry.state, entry.reason, entry.unreferenced_since):
            state, reason, since = row
            rows.append(
                {
                    "at": entry.store_id,
                    "state": state,
                    "since": since,
                    **reason_columns(reason),
                }
            )
    if rows:
        connection.execute(
            update(EntryRow.__table__)  # type: ignore[arg-type]
            .where(
                EntryRow.__table__.c.target_id == target_id,
                EntryRow.__table__.c.store_id == bindparam("at"),
            )
            .values(
                state=bindparam("state"),
                reason=bindparam("reason"),
                facts=bindparam("facts"),
                unreferenced_since=bindparam("since"),
            ),
            rows,
        )


def save_index_marks(connection: Connection, target_id: int, marks: Marks, plan: Plan) -> None:
    """Record the contents of the indexes, once all entries are marked and saved."""
    up_to_date = set(plan.up_to_date)
    if marks.certain:
        note_marked(connection, target_id, (one.id for one in marks.indexes), marks.snapshot.now)
    for index in marks.indexes:
        if index.id in up_to_date and index.newest:
            note_up_to_date(connection, index.newest.generation_id, marks.snapshot.now)


def note_blocked(
    connection: Connection, target_id: int, now: datetime, *, blocked: bool
) -> datetime | None:
    """Remember whether a run could delete blobs; return since when none could, if that is so."""
    here = Target.id == target_id
    since = connection.execute(select(Target.blocked_since).where(here)).scalar_one()
    since = (since or now) if blocked else None
    connection.execute(update(Target).where(here).values(blocked_since=since))
    return since


def save_rewritten(
    connection: Connection,
    target_id: int,
    rewritten: RewriteResult,
    merged: Iterable[int],
    now: datetime,
) -> None:
    """Record what was written, what builds wrote concurrently, and what both supersede.

    `merged` are the generations that were merged or replaced: builders no longer read them.
    """
    concurrent = record_generations(connection, target_id, rewritten.concurrent, now).ids
    mark_missing(connection, target_id, rewritten.missing, now)
    written: tuple[int, ...] = ()
    if rewritten.written:
        written = record_generations(connection, target_id, [rewritten.written], now).ids
    if rewritten.index.is_named:
        # A tag leads to one generation: the last of these.
        forget_generations(
            connection, {*merged, *concurrent} - {*(written or concurrent[-1:] or merged)}
        )
    elif written:
        _start_clocks(connection, target_id, {*merged, *concurrent} - {*written}, now)
    if written:
        note_up_to_date(connection, written[-1], now)


def _start_clocks(
    connection: Connection, target_id: int, generations: Iterable[int], now: datetime
) -> None:
    """Record that builders no longer read these generations, unless already recorded."""
    entry, generation = EntryRow.__table__, GenerationRow.__table__.c
    rows = [{"row": number} for number in sorted(generations)]
    store_id = (
        select(generation.store_id).where(generation.id == bindparam("row")).scalar_subquery()
    )
    if rows:
        connection.execute(
            update(entry)  # type: ignore[arg-type]
            .where(
                entry.c.target_id == target_id,
                entry.c.store_id == store_id,
                entry.c.unreferenced_since.is_(None),
            )
            .values(unreferenced_since=now, state=State.SUPERSEDED.value),
            rows,
        )


def save_swept(
    connection: Connection, target_id: int, swept: Sequence[Deletion], now: datetime
) -> None:
    """Remember what is gone."""
    gone = [
        {"at": one.delete.entry.store_id, **reason_columns(one.delete.reason)}
        for one in swept
        if one.is_gone
    ]
    if not gone:
        return
    entry, generation = EntryRow.__table__, GenerationRow.__table__
    connection.execute(
        update(entry)  # type: ignore[arg-type]
        .where(entry.c.target_id == target_id, entry.c.store_id == bindparam("at"))
        .values(
            state="deleted",
            reason=bindparam("reason"),
            facts=bindparam("facts"),
            missing_since=now,
        ),
        gone,
    )
    _note_missing_blobs(connection, target_id, swept, now)
    is_gone = exists().where(
        entry.c.target_id == target_id,
        entry.c.store_id == generation.c.store_id,
        entry.c.missing_since == now,
    )
    connection.execute(
        update(generation)  # type: ignore[arg-type]
        .where(generation.c.target_id == target_id, is_gone)
        .values(missing_since=now)
    )


def _note_missing_blobs(
    connection: Connection, target_id: int, swept: Iterable[Deletion], now: datetime
) -> None:
    """Record which blobs are gone, so that no run looks up what it deleted itself."""
    keys = (one.delete.entry.parsed for one in swept if one.is_gone)
    deleted = {key.digest for key in keys if isinstance(key, BlobKey)}
    others = exists().where(
        EntryRow.kind == "blob",
        EntryRow.digest == BlobRow.digest,
        EntryRow.missing_since.is_(None),
        EntryRow.content_missing_since.is_(None),
        RefRow.id == EntryRow.ref_id,
        RefRow.target_id == target_id,
        RefRow.readable,
    )
    rows = [{"blob": digest} for digest in sorted(deleted)]
    if rows:
        connection.execute(
            update(BlobRow.__table__)  # type: ignore[arg-type]
            .where(
                BlobRow.target_id == target_id,
                BlobRow.digest == bindparam("blob"),
                BlobRow.missing_since.is_(None),
                ~others,
            )
            .values(missing_since=now),
            rows,
        )


def finish_run(connection: Connection, report: Report) -> None:
    """Store the report of a run, without its actions: the graph has them."""
    _finish(connection, report, {"report": _encode(report)})


def finish_idle_run(connection: Connection, report: Report, same_as: int) -> None:
    """Store what the report of an idle run has that the one which it repeats has not."""
    last = msgspec.json.decode(load_content(connection, same_as) or b"{}", type=Fields)
    new = msgspec.json.decode(_encode(report), type=Fields)
    changed = {name: value for name, value in new.items() if last.get(name) != value}
    more = {"report": msgspec.json.encode(changed), "same_as": same_as, "has_plan": True}
    _finish(connection, report, more)


def _encode(report: Report) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(report, actions=()))


def _finish(connection: Connection, report: Report, more: Mapping[str, object]) -> None:
    save_states(connection, report)
    connection.execute(
        update(RunRow)
        .where(RunRow.id == report.run)
        .values(
            finished_at=report.finished_at,
            status=report.status,
            entries=sum(total.entries for total in report.entries),
            indexes_read=report.requests.counts.get("download", 0),
            indexes_written=report.indexes_written,
            entries_deleted=report.entries_deleted,
            bytes_deleted=report.bytes_freed,
            blobs_missing=report.blobs_missing,
            requests=report.requests.total,
            # Without a runtime token a run cannot know.
            results_usable=report.results_usable if report.readable else None,
            **more,
        )
    )
    _forget_runs(connection, report)


def _forget_runs(connection: Connection, report: Report) -> None:
    """Drop old runs, and everything but the counts of runs that changed nothing.

    A service may run every few seconds; the file must not grow without limit.
    """
    target = select(RunRow.target_id).where(RunRow.id == report.run).scalar_subquery()
    runs = select(RunRow.id).where(RunRow.target_id == target).order_by(RunRow.id.desc())
    newest = runs.limit(REPORTS)
    repeated = select(RunRow.same_as).where(RunRow.id.in_(newest), RunRow.same_as.is_not(None))
    too_old = or_(
        RunRow.started_at < report.started_at - _REMEMBERED_FOR,
        RunRow.id.in_(runs.offset(_RUNS)),
    )
    is_past = RunRow.target_id == target, too_old, RunRow.id.not_in(repeated)
    connection.execute(delete(RunRow).where(*is_past))
    dull = select(RunRow.id).where(
        RunRow.target_id == target,
        RunRow.id.not_in(newest),
        RunRow.id.not_in(repeated),
        RunRow.report.is_not(None),
        RunRow.status == "done",
        RunRow.indexes_written == 0,
        RunRow.entries_deleted == 0,
    )
    numbers = connection.execute(dull).scalars().all()
    connection.execute(delete(ActionRow).where(ActionRow.run_id.in_(numbers)))
    here = RunRow.id.in_(numbers)
    connection.execute(update(RunRow).where(here).values(report=None, has_plan=False))
    shows_it = exists().where(
        RunRow.target_id == target,
        RunRow.has_plan,
        RunRow.id.between(KeepRow.first_run, KeepRow.last_run),
    )
    connection.execute(
        delete(KeepRow).where(KeepRow.target_id == target, KeepRow.last_run.is_not(None), ~shows_it)
    )
