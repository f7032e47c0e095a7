"""Plan: what to write, what to delete, and what to leave alone, each with its reason. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from maintainer.cacheconfig import (
    MAX_GENERATION,
    MAX_KEY_LENGTH,
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    encode,
    loses_links,
    merge,
    parse_key,
    why_too_large,
    with_sink,
)
from maintainer.cacheconfig.oci import fits_importers
from maintainer.exports import find_export
from maintainer.model import reason as reasons
from maintainer.model.decision import DeleteEntry, Keep, Plan, Rules, WriteIndex
from maintainer.model.entry import KnownEntry
from maintainer.model.export import Export
from maintainer.model.index import KnownGeneration
from maintainer.model.marks import Index, Mark, Marks, Shield, State
from maintainer.model.reason import Reason, WriteReason

_A_DAY = timedelta(days=1)


def make_plan(marks: Marks, rules: Rules) -> Plan:
    """Decide from what was marked, the rules, and the time of the snapshot."""
    return Planner(marks, rules).plan(marks.marks)


def _order(delete: DeleteEntry) -> tuple[int, datetime, int]:
    return delete.rank, delete.entry.created_at, delete.entry.store_id


class Planner:
    """Makes one plan, whose entries may come in several parts."""

    def __init__(self, marks: Marks, rules: Rules) -> None:
        self.marks = marks
        self.rules = rules
        self.now = marks.snapshot.now
        self.grace = rules.grace
        self.writes: dict[IndexId, WriteIndex] = {}
        self.deletes: list[DeleteEntry] = []
        self.keeps: list[Keep] = []
        self.settled: set[IndexId] = set()
        self.blocked = self._why_no_blob_may_be_swept()
        unreadable_too = rules.protects_unreadable_refs
        self.export = find_export(marks.snapshot, unreadable_too=unreadable_too)
        self.deferred: Export | None = None
        self.named_by: dict[Digest, set[IndexId]] = {}
        for index in marks.indexes:
            for blob in index.named:
                self.named_by.setdefault(blob, set()).add(index.id)
        for blob, holders in marks.snapshot.facts.manifest_blobs.items():
            self.named_by.setdefault(blob, set()).update(holders)
        for index in marks.indexes:
            self._plan_index(index)

    def plan(self, marks: Iterable[Mark]) -> Plan:
        """Give the plan; what was decided of entries before is not in it again."""
        for marked in marks:
            self._plan_entry(marked)
        plan = Plan(
            writes=tuple(self.writes.values()),
            deletes=tuple(sorted(self.deletes, key=_order)),
            keeps=tuple(self.keeps),
            settled=tuple(sorted(self.settled)),
            blocked=self.blocked or (self.deferred.reason if self.deferred else None),
            deferred=self.deferred,
        )
        self.deletes, self.keeps = [], []
        return plan

    def _why_no_blob_may_be_swept(self) -> Reason | None:
        """Tell why no blob may be deleted in this run, if so: what is needed is not all known."""
        if self.marks.snapshot.unread:
            return reasons.UnreadIndex(self.marks.snapshot.unread[0].name)
        if not self.marks.snapshot.listing_complete:
            return reasons.IncompleteList()
        return None

    def _plan_index(self, index: Index) -> None:
        if index.id.signed:
            self.keep_index(index, reasons.Signed())
            return
        if used := _used_by_builds(index):
            self.keep_index(index, used)
            return
        reason = self._why_write(index)
        if reason is None:
            self.settled.add(index.id)
            self.keep_index(index, _up_to_date(index))
        elif self.rules.repair and not self._is_broken(index):
            self.keep_index(index, reasons.NotBroken(reason))
        elif index.unread and index.newest is None:
            self.keep_index(index, reasons.NewestUnread(index.unread[-1].why))
        elif index.id.ref not in self.marks.snapshot.access.writable:
            self.keep_index(index, reasons.NotWritable(index.id.ref, reason))
        elif why_not := self._why_it_cannot_be(index):
            self.keep_index(index, why_not)
        else:
            key = index.id.key(index.highest + 1)
            reason = msgspec.structs.replace(reason, left_out=index.left_out)
            self.writes[index.id] = WriteIndex(index.id, key, index.merged, reason, index.sink)

    def _is_broken(self, index: Index) -> bool:
        """Return whether builders fail on what they read, or miss what it promises."""
        missing = index.named - self.marks.snapshot.live_blobs
        return bool(missing) or any(one.violation for one in index.current)

    def _why_it_cannot_be(self, index: Index) -> Reason | None:
        if index.highest >= MAX_GENERATION:
            return reasons.NumbersExhausted()
        key = str(index.id.key(index.highest + 1))
        if not index.id.is_tag and parse_key(key) is None:
            return reasons.KeyTooLong(len(key), MAX_KEY_LENGTH)
        if self.rules.max_index_size and not index.id.is_tag:
            content = encode(with_sink(index.merged))
            problem = why_too_large(content, self.rules.max_index_size)
            return reasons.TooLarge(problem, len(content)) if problem else None
        return None

    def _why_write(self, index: Index) -> WriteReason | None:
        newest = index.newest
        if newest is None:
            if index.unread:
                return reasons.MergeGenerations()
            if not index.merged.records:
                return None
            if index.is_merge:
                return reasons.MergeOthers(ref=index.id.ref, others=index.merged_with)
            return reasons.Restore(results=index.merged.result_count)
        if newest.violation is not None:
            number = None if index.id.is_tag else newest.number
            return reasons.Invalid(violation=newest.violation, generation=number)
        return self._why_replace(index, newest, newest.config or CacheConfig())

    def _why_replace(
        self, index: Index, newest: KnownGeneration, config: CacheConfig
    ) -> WriteReason | None:
        """Return why a valid newest generation is not what builders need, if so."""
        if config != index.merged and merge([config]) != index.merged:
            if index.is_merge and index.merged_with:
                return _follow_others(index, config)
            broken = self.marks.snapshot.broken_blobs
            return _merge_or_drop(index, newest, config, broken)
        if loses_links(index.merged, newest.sink) and _has_room_for_sink(index):
            return reasons.AddSink()
        return self._why_hidden(index.hidden_by, newest) if index.hidden_by else None

    def _why_hidden(self, hidden_by: str, newest: KnownGeneration) -> WriteReason:
        """Return what hides the newest generation, or that an incomplete list lacks the newest."""
        is_listed = newest.store_id is None or newest.last_seen_at in (None, self.now)
        if not is_listed:
            return reasons.Unlisted(key=str(newest.key), shadowed_by=hidden_by)
        return reasons.Shadowed(by=hidden_by)

    def keep_index(self, index: Index, reason: Reason) -> None:
        self.keeps.append(Keep(str(index.id), index.id.ref, reason))

    def _plan_entry(self, marked: Mark) -> None:
        if self.rules.repair:
            return
        if marked.state is State.DANGLING:
            self._plan_dangling(marked)
        elif marked.state is State.WITHOUT_CONTENT:
            self._plan_without_content(marked)
        elif marked.state in (State.SUPERSEDED, State.NEWEST):
            self._plan_generation(marked)
        elif marked.state is State.UNREAD:
            self.keep_entry(marked.entry, marked.reason)

    def _plan_generation(self, marked: Mark) -> None:
        if isinstance(marked.entry.parsed, BlobKey):
            self._plan_held(marked, marked.entry.parsed.digest)
            return
        index = marked.index
        if index is None or (marked.state is State.NEWEST and index not in self.writes):
            return
        if index not in self.writes and index not in self.settled:
            self.keep_entry(marked.entry, reasons.IndexNotRewritten(str(index), index.ref))
            return
        self._delete_after_grace(marked, State.SUPERSEDED, frozenset({index} & self.writes.keys()))

    def _plan_held(self, marked: Mark, digest: Digest) -> None:
        """Decide of the manifest or config of a tag, which goes once no tag names it."""
        holders = self.named_by[digest]
        if not holders - self.writes.keys():
            self._delete_after_grace(marked, State.SUPERSEDED, frozenset(holders))

    def _plan_dangling(self, marked: Mark) -> None:
        digest = getattr(marked.entry.parsed, "digest", Digest(""))
        namers = self.named_by.get(digest, set())
        if self.blocked:
            self.keep_entry(marked.entry, self.blocked)
        elif left := sorted(namers - self.writes.keys()):
            self.keep_entry(marked.entry, reasons.StillNamed(str(left[0]), left[0].ref))
        elif shield := self._shield(marked.entry):
            until = shield.created_at + self.grace
            self.keep_entry(marked.entry, reasons.OpaqueIndex(shield.key, shield.ref, until))
        else:
            self._delete_after_grace(marked, State.DANGLING, frozenset(namers))

    def _plan_without_content(self, marked: Mark) -> None:
        """Delete an entry that is of no use to anybody, whatever names it.

        There is no grace period: a build that finds it fails, and a build that exports finds it,
        uploads nothing, and names it again. The indexes that can be rewritten come first.
        """
        namers = self.named_by.get(getattr(marked.entry.parsed, "digest", Digest("")), set())
        after = frozenset(namers & self.writes.keys())
        delete = DeleteEntry(marked.entry, marked.state, marked.reason, after)
        self.deletes.append(delete)

    def _shield(self, entry: KnownEntry) -> Shield | None:
        goes_by_itself = self._goes_by_itself(entry)
        for shield in self.marks.shields:
            is_read = shield.ref in self.marks.snapshot.access.readable
            if not is_read and (goes_by_itself or not self.rules.protects_unreadable_refs):
                continue
            if self.now - shield.created_at < self.grace and shield.created_at >= entry.created_at:
                return shield
        return None

    def _goes_by_itself(self, entry: KnownEntry) -> bool:
        """Return whether the store would evict an entry tomorrow: nobody has used it for long.

        So an index that is written each day, in a ref that nobody here can read, does not keep
        for ever what it may need.
        """
        retention = self.rules.retention
        if retention is None:
            return False
        return self.now - entry.last_use_at >= max(retention - _A_DAY, retention / 2)

    def _delete_after_grace(self, marked: Mark, state: State, after: frozenset[IndexId]) -> None:
        since = marked.since or self.now
        if self.now - since < self.grace:
            self.keep_entry(marked.entry, reasons.Grace(state.value, since, since + self.grace))
            return
        if self.export and state is State.DANGLING:
            self.deferred = self.export
            self.keep_entry(marked.entry, self.export.reason)
            return
        reason: Reason = reasons.Replaced(is_tag=isinstance(marked.entry.parsed, BlobKey))
        if isinstance(marked.reason, reasons.Overdue):
            reason = msgspec.structs.replace(marked.reason, since=since)
        self.deletes.append(DeleteEntry(marked.entry, state, reason, after))

    def keep_entry(self, entry: KnownEntry, reason: Reason) -> None:
        self.keeps.append(Keep(entry.key, entry.ref, reason, entry.size, entry.store_id))


def _used_by_builds(index: Index) -> reasons.UsedByBuilds | None:
    return (
        reasons.UsedByBuilds(index.used_by_builds, index.id.is_tag)
        if index.used_by_builds
        else None
    )


def _up_to_date(index: Index) -> Reason:
    if not index.newest:
        return reasons.NothingLeft()
    return reasons.UpToDate(index.id.is_tag, index.left_out)


def _follow_others(index: Index, config: CacheConfig) -> reasons.FollowOthers:
    return reasons.FollowOthers(
        ref=index.id.ref,
        others=index.merged_with,
        more=len(index.merged.blobs - config.blobs),
        less=len(config.blobs - index.merged.blobs),
    )


def _has_room_for_sink(index: Index) -> bool:
    """Return whether importers still read an index of a directory that has a sink, too."""
    return not index.id.is_tag or fits_importers(index.merged)


def _merge_or_drop(
    index: Index, newest: KnownGeneration, config: CacheConfig, broken: frozenset[Digest]
) -> WriteReason:
    others = tuple(one.number for one in index.inputs if one.manifest_id != newest.manifest_id)
    gone = config.blobs - index.merged.blobs
    without_content, missing = len(gone & broken), len(gone - broken)
    if others:
        return reasons.Merge(
            generations=others,
            into=newest.number,
            without_content=without_content,
            missing=missing,
        )
    if gone:
        return reasons.DropMissing(without_content=without_content, missing=missing)
    return reasons.DropUnused()
