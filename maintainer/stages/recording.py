"""Record: what a probe has found, before anything is decided."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from maintainer.cacheconfig import NO_REF, IndexId, Scope, Sink
from maintainer.errors import BudgetExhaustedError, MassDeletionError
from maintainer.exports import LONGEST_EXPORT, find_export, keep_signs
from maintainer.graph.entries import Entries
from maintainer.graph.memory import take_over
from maintainer.graph.recall import (
    count_expected,
    recall_entries,
    swept_since,
)
from maintainer.graph.record import record
from maintainer.graph.runs import note_read
from maintainer.graph.shared_names import find_shared_names
from maintainer.mark import mark
from maintainer.model.entry import LONG_AGO
from maintainer.model.export import Export
from maintainer.model.memory import Probe
from maintainer.model.reason import (
    LossAccepted,
    MergeOverwritten,
    MergeTakenOver,
    NamesDeleted,
    Note,
    SharedNames,
)
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot
from maintainer.plan import Planner
from maintainer.policy.loss import find_loss
from maintainer.probe import wait_for_index
from maintainer.report.reasons import format_loss, format_reason
from maintainer.report.words import format_size
from maintainer.sanitize import printable
from maintainer.stages.probing import list_cache, probe_cache
from maintainer.stages.run import Marked, Probed, Recorded, Run

log = logging.getLogger(__name__)

_PAUSE = timedelta(seconds=15)
"""The pause between two checks whether an export has ended."""
_MOMENT = timedelta(microseconds=1)
"""Two probes differ in time by at least this."""


async def record_probe(run: Run, looked: Probed) -> Recorded:
    """Record a probe, after a second one if too much seems to be gone.

    If an export in progress may need blobs that are due for deletion, wait for it and probe again.
    Raises MassDeletionError.
    """
    seen = await _record_once(run, looked)
    if run.mode.sweeps:
        seen = await _wait_for_exports(run, seen)
    run.report.notes += seen.probe.facts.notes
    _note_shared_names(run)
    _log_unseen(run, seen)
    return seen


async def _record_once(run: Run, looked: Probed) -> Recorded:
    try:
        return _record(run, looked)
    except MassDeletionError:
        log.warning("most known entries seem to be gone: listing them again")
    listed = await list_cache(run, looked.probe.at, run.report.limits)
    return _record(run, await probe_cache(run, listed))


def _record(run: Run, looked: Probed) -> Recorded:
    """Record a probe; record nothing if implausibly much is gone."""
    probed, target_id = looked.probe, run.target_id
    run.context.progress.stage("record")
    with run.begin() as connection:
        expected = count_expected(connection, target_id, probed.access)
        merged = record(
            connection,
            target_id,
            probed,
            remember_exports=run.collector.settings.remember_exports,
            forgets=not (run.mode.dry_run or run.mode.repair),
        )
        note_read(connection, run.report.run, len(probed.read))
        note, taken_over = _take_over_merge(run, connection, looked)
        snapshot = run.load_snapshot(
            connection, probed, merged=merged | taken_over, merged_scope=_merged_scope(run, probed)
        )
        by_runs = _deleted_by_runs(run, connection, looked)
        accepted = _check_loss(
            run, connection, looked, snapshot, expected=expected, by_runs=by_runs
        )
        deleted = _find_deleted_names(run, looked, by_runs)
    entries = Entries(run.database, target_id, probed.at, run.report.started_at)
    if not probed.abilities.shows_exports:
        snapshot = _with_signs_of_exports(run, snapshot, entries)
    run.report.notes += [one for one in (accepted, note, deleted) if one]
    # What was read is in the graph, and decoded in the snapshot.
    return Recorded(looked.known, replace(probed, read=()), snapshot, entries)


def _deleted_by_runs(run: Run, connection: Connection, looked: Probed) -> frozenset[IndexId]:
    """Return the known names that runs have deleted since the last one that was done."""
    known, prefix = looked.known, looked.probe.facts.index_prefix
    # A first run that failed on the way has deleted names, too.
    keys = swept_since(connection, run.target_id, known.probed_at or LONG_AGO)
    names = {key.removeprefix(prefix) for key in keys}
    return frozenset(one for one in known.places if one.is_named and one.scope in names)


def _check_loss(
    run: Run,
    connection: Connection,
    looked: Probed,
    snapshot: Snapshot,
    *,
    expected: int,
    by_runs: frozenset[IndexId],
) -> LossAccepted | None:
    """Raise MassDeletionError if implausibly much is gone; return that, if it is accepted."""
    probed, limits = looked.probe, run.report.limits
    remembered = recall_entries(connection, run.target_id, probed.access, probed.at, expected)
    loss = find_loss(looked.known, remembered, probed, snapshot, limits, deleted=by_runs)
    if loss is None:
        return None
    if not run.mode.accept_loss:
        assumed = limits.quota if limits.is_assumed else None
        what = format_loss(loss.found, loss.expected, loss.of)
        raise MassDeletionError(what, format_size(assumed) if assumed else "")
    return LossAccepted(loss.found, loss.expected, loss.of)


def _with_signs_of_exports(run: Run, snapshot: Snapshot, entries: Entries) -> Snapshot:
    """Add the young entries, by which exports in progress are recognized."""
    since = snapshot.now - max(LONGEST_EXPORT, run.collector.settings.grace)
    snapshot = replace(snapshot, entries=entries.indexes_since(since))
    signs = keep_signs(snapshot, entries.uploads_since(snapshot.now - LONGEST_EXPORT))
    return replace(snapshot, entries=(*snapshot.entries, *signs))


def _find_deleted_names(
    run: Run, looked: Probed, by_runs: frozenset[IndexId]
) -> NamesDeleted | None:
    """Return which names were stored when the last run ended, and are not any more."""
    known, probed, merged = looked.known, looked.probe, run.collector.settings.merged_tag
    if known.probed_at is None:
        return None
    present = {one.index for one in probed.read} | {one.index for one in probed.unread}
    gone = [
        index.scope
        for index, places in known.places.items()
        if index.is_named and index not in present and index.scope != merged
        if index not in by_runs
        if places and all(place.generation_id in probed.gone for place in places.values())
    ]
    names = sorted(printable(name) for name in gone)
    return NamesDeleted(tuple(names)) if names else None


def _take_over_merge(
    run: Run, connection: Connection, looked: Probed
) -> tuple[Note | None, dict[IndexId, Remembered]]:
    """Keep what others have written into the merge of all names, unless exports are forgotten.

    Return what to say of it, and what is remembered of it.
    """
    settings, probed = run.collector.settings, looked.probe
    wanted = IndexId(NO_REF, Scope(settings.merged_tag))
    merge = next((one for one in probed.read if one.index == wanted), None)
    if merge is None or merge.sink is not Sink.MERGE or not settings.remember_exports:
        return None, {}
    unknown, taken_over = take_over(
        connection,
        run.target_id,
        probed.access,
        merge,
        now=probed.at,
        used_since=probed.at - settings.remember_exports,
    )
    if not unknown:
        return None, taken_over
    note = MergeOverwritten if looked.known.places.get(merge.index) else MergeTakenOver
    return note(printable(settings.merged_tag), unknown), taken_over


def _merged_scope(run: Run, probed: Probe) -> Scope | None:
    settings = run.collector.settings
    name = settings.merged_scope if probed.abilities.numbered else settings.merged_tag
    if not name or (run.mode.repair and not _is_lost(Scope(name), probed)):
        # A repair merges nothing, so the merge is an index like any other.
        return None
    return Scope(name)


def _is_lost(scope: Scope, probed: Probe) -> bool:
    """Whether the content of an index is lost: a merge can only be made again."""
    return any(one.index.scope == scope and one.config is None for one in probed.read)


async def _wait_for_exports(run: Run, seen: Recorded) -> Recorded:
    waits = _pauses(run.collector.settings.export_wait)
    while export := _find_deferring(run, seen):
        run.context.progress.stage("wait for an export")
        log.info("waiting for an index: %s", format_reason(export.reason))
        if not await wait_for_index(run.store, export, waits, run.context):
            break
        at = max(run.collector.clock(), seen.probe.at + _MOMENT)
        try:
            listed = await list_cache(run, at, run.report.limits)
            seen = await _record_once(run, await probe_cache(run, listed))
        except BudgetExhaustedError as error:
            run.budget.stop(error.reason)
    return seen


def _find_deferring(run: Run, seen: Recorded) -> Export | None:
    """Return the export that is worth waiting for, if any."""
    if run.budget.exhausted or run.budget.is_limited or seen.probe.unasked_blobs:
        return None
    if find_export(seen.snapshot) is None:
        return None
    marked = Marked(mark(seen.snapshot), seen.entries, frozenset())
    planner = Planner(marked.marks, run.rules)
    return next((e for m in marked.batches() if (e := planner.plan(m.marks).deferred)), None)


def _pauses(total: timedelta) -> Iterator[timedelta]:
    """Divide a time into the pauses between two probes."""
    while total > timedelta(0):
        yield min(total, _PAUSE)
        total -= _PAUSE


def _note_shared_names(run: Run) -> None:
    if not run.store.abilities.numbered:
        with run.database.begin() as connection:
            names = find_shared_names(connection, run.target_id)
        if names:
            run.report.notes.append(SharedNames(names))


def _log_unseen(run: Run, seen: Recorded) -> None:
    """Record the unread indexes; if no index at all could be read, the run has failed."""
    unread = seen.probe.unread
    if run.budget.exhausted:
        if unread:
            run.deferred.indexes = len(unread)
        if seen.probe.unasked_blobs:
            run.deferred.blobs = len(seen.probe.unasked_blobs)
    elif unread and not any(generation.exists for generation in seen.snapshot.generations):
        why = format_reason(unread[0].why)
        run.report.problems.append(f"no index could be read; the first is {unread[0].name}: {why}")
