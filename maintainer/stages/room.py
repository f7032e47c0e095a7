"""Room: what leaves a cache that holds too much, before the plan is made."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

import anyio.lowlevel

from maintainer.cacheconfig import Digest
from maintainer.graph.arrivals import load_arrivals
from maintainer.graph.room import load_blobs, load_needed_at, load_unseen
from maintainer.making_room import choose
from maintainer.mark import mark
from maintainer.model.marks import Marks
from maintainer.model.reason import LeftForRoom, QuotaUnknown
from maintainer.model.room import Room, RoomDecision
from maintainer.model.stock import LastExport, Needs, Stock, newest_exports, newest_rewrites
from maintainer.plan import Planner
from maintainer.policy.headroom import forecast
from maintainer.stages.run import Marked, Run


async def find_room(run: Run, marked: Marked) -> Marked:
    """Return the marks without what leaves to make room.

    What has left comes back if all that is stored fits. Nothing leaves in a run that deletes
    nothing, or that has not seen everything.
    """
    quota, keep_free = run.report.limits.quota, run.rules.keep_free
    if keep_free is None or not _may_make_room(run, marked):
        return marked
    if quota is None or run.report.limits.is_assumed:
        run.report.notes.append(QuotaUnknown(is_assumed=run.report.limits.is_assumed))
        # Where there is no quota at all, everything fits; one that is assumed may be known again.
        return _without_departures(marked) if quota is None else marked
    expected = _forecast(run) if run.store.abilities.evicted_by else None
    limit = keep_free.limit(quota, expected or 0)
    stored = marked.entries.total_size()
    if stored <= limit:
        all_fits = Room(stored, stored, frozenset())
        run.report.room = RoomDecision(all_fits, limit, quota, stored)
        return _without_departures(marked)
    stock = await _take_stock(run, marked)
    needs = _find_needs(run, marked.marks)
    room = choose(marked.marks, stock, needs, limit, run.rules.grace)
    run.report.room = RoomDecision(room, limit, quota, stock.stored)
    if room.blocked:
        run.report.notes.append(room.blocked)
    if not room.departures:
        return marked
    left = marked.marks.snapshot.departed
    leaving = room.departed.keys() - left.keys()
    return _with_departed(marked, {**left, **room.departed}, leaving)


def _without_departures(marked: Marked) -> Marked:
    """Return the marks if nothing has left, because all that is stored fits."""
    return _with_departed(marked, {}) if marked.marks.snapshot.departed else marked


def _with_departed(
    marked: Marked, departed: Mapping[Digest, LeftForRoom], leaving: Collection[Digest] = ()
) -> Marked:
    snapshot = replace(marked.marks.snapshot, departed=departed, leaving=frozenset(leaving))
    return replace(marked, marks=mark(snapshot))


def begin_plan(run: Run, marked: Marked) -> Planner:
    """Begin a plan, which may be made in batches."""
    others = marked.entries.of_other_tools([rule.prefix for rule in run.rules.tools])
    return Planner(marked.marks, run.rules, others)


def _may_make_room(run: Run, marked: Marked) -> bool:
    """Whether this run may delete, and has seen everything."""
    may_delete = run.store.abilities.lists and run.store.abilities.deletes
    is_asked = not (run.mode.no_sweep or run.mode.repair)
    return may_delete and is_asked and not marked.marks.snapshot.gap


def _forecast(run: Run) -> int | None:
    """Return how much is expected until the next run, if that is known."""
    with run.database.reading() as connection:
        now = run.collector.clock()
        return forecast(load_arrivals(connection, run.target_id, run.report.run, now))


async def _take_stock(run: Run, marked: Marked) -> Stock:
    """Add up what is stored, and what of it a plan would delete without making room."""
    planner, stock = begin_plan(run, marked), Stock()
    for batch in marked.batches():
        stock.add(batch.marks, planner.plan(batch.marks))
        await anyio.lowlevel.checkpoint()
    return stock


def _find_needs(run: Run, marks: Marks) -> Needs:
    generations = marks.snapshot.generations
    newest, rewrites = newest_exports(generations), newest_rewrites(generations)
    wanted = {one.generation_id for one in (*newest.values(), *rewrites.values())}
    with run.database.reading() as connection:
        needed_at = load_needed_at(connection, run.target_id)
        unseen = load_unseen(connection, run.target_id)
        blobs = load_blobs(connection, wanted)
    exports = {
        index: LastExport(blobs.get(one.generation_id, frozenset()), one.created_at)
        for index, one in newest.items()
    }
    for index, known in marks.snapshot.memory.items():
        if index.is_named:
            exports[index] = _export_of(known.config.blobs, exports.get(index), needed_at, marks)
    for index, one in rewrites.items():
        # What no build was seen to export was exported when another database was in use: before
        # runs first saw it, for each of our own rewrites contains it, too.
        rewritten = blobs.get(one.generation_id, frozenset())
        times = [unseen[blob] for blob in rewritten if blob in unseen]
        if times and (at := min(one.created_at, max(times))) > exports[index].at:
            exports[index] = LastExport(rewritten, at)
    return Needs(needed_at, exports)


def _export_of(
    blobs: frozenset[Digest],
    stored: LastExport | None,
    needed_at: Mapping[Digest, datetime],
    marks: Marks,
) -> LastExport:
    """Return the newest export of a tag; `stored` is what it leads to now.

    A blob that only this tag needs was exported when the tag was.
    """
    known = (needed_at[blob] for blob in blobs if blob in needed_at)
    return LastExport(blobs, min(known, default=stored.at if stored else marks.snapshot.now))
