"""Plan: what to write, what to delete, and what to leave alone, each with its reason. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

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
from maintainer.cacheconfig.oci import IMPORT_LIMIT, fits_importers
from maintainer.exports import find_export
from maintainer.model.decision import DeleteEntry, Keep, Plan, Rules, WriteIndex
from maintainer.model.entry import KnownEntry
from maintainer.model.export import Export
from maintainer.model.index import KnownGeneration
from maintainer.model.marks import Index, Mark, Marks, Shield, State

_A_DAY = timedelta(days=1)
_FEW = 3
"""So many generations are named one by one."""


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
            blocked=self.blocked or (f"deferred: {self.deferred}" if self.deferred else None),
            deferred=self.deferred,
        )
        self.deletes, self.keeps = [], []
        return plan

    def _why_no_blob_may_be_swept(self) -> str | None:
        """Tell why no blob may be deleted in this run, if so: what is needed is not all known."""
        if self.marks.snapshot.unread:
            unread = self.marks.snapshot.unread[0]
            return f"{unread.name} could not be read this time and may need it"
        if not self.marks.snapshot.listing_complete:
            return "the list of entries was not whole, so an index may have been missed"
        return None

    def _plan_index(self, index: Index) -> None:
        if index.id.signed:
            self.keep_index(index, "signed indexes are never rewritten")
            return
        if index.used_by_builds:
            self.keep_index(index, _say_used_by_builds(index))
            return
        reason = self._why_write(index)
        if reason is None:
            self.settled.add(index.id)
            self.keep_index(index, _say_settled(index))
        elif self.rules.repair and not self._is_broken(index):
            self.keep_index(index, f"it is not broken; left to a run without --repair: {reason}")
        elif index.unread and index.newest is None:
            problem = index.unread[-1].problem
            self.keep_index(index, f"its newest generation could not be read this time: {problem}")
        elif index.id.ref not in self.marks.snapshot.access.writable:
            who = "the directory cannot be" if index.id.is_tag else "the token cannot write"
            what = "written" if index.id.is_tag else index.id.ref
            self.keep_index(index, f"{who} {what}; left to do: {reason}")
        elif why_not := self._why_it_cannot_be(index):
            self.keep_index(index, why_not)
        else:
            key = index.id.key(index.highest + 1)
            reason += _say_left_out(index)
            self.writes[index.id] = WriteIndex(index.id, key, index.merged, reason, index.sink)

    def _is_broken(self, index: Index) -> bool:
        """Return whether builders fail on what they read, or miss what it promises."""
        missing = index.named - self.marks.snapshot.live_blobs
        return bool(missing) or any(one.violation for one in index.current)

    def _why_it_cannot_be(self, index: Index) -> str | None:
        if index.highest >= MAX_GENERATION:
            return "its generations have no further numbers"
        key = str(index.id.key(index.highest + 1))
        if not index.id.is_tag and parse_key(key) is None:
            return f"the next key would have {len(key)} characters, more than {MAX_KEY_LENGTH}"
        if self.rules.max_index_size and not index.id.is_tag:
            reason = why_too_large(encode(with_sink(index.merged)), self.rules.max_index_size)
            return f"the merged index {reason}" if reason else None
        return None

    def _why_write(self, index: Index) -> str | None:
        newest = index.newest
        if newest is None:
            if index.unread:
                return "merge its generations"
            say = _say_new_merge if index.is_merge else _say_restored
            return say(index) if index.merged.records else None
        if newest.violation is not None:
            what = "its manifest" if index.id.is_tag else f"generation {newest.number}"
            return f"{what} is not valid: {newest.violation}"
        return self._why_replace(index, newest, newest.config or CacheConfig())

    def _why_replace(
        self, index: Index, newest: KnownGeneration, config: CacheConfig
    ) -> str | None:
        """Return why a valid newest generation is not what builders need, if so."""
        if config != index.merged and merge([config]) != index.merged:
            if index.is_merge and index.merged_with:
                return _say_changed_merge(index, config)
            broken = self.marks.snapshot.broken_blobs
            return _say_merge(index, newest, config, broken)
        if loses_links(index.merged, newest.sink) and _has_room_for_sink(index):
            return "add the sink record, without which builders find only part of it"
        return self._say_hidden(index, newest) if index.hidden_by else None

    def _say_hidden(self, index: Index, newest: KnownGeneration) -> str:
        """Say what hides the newest generation, or that an incomplete list lacks the newest."""
        is_listed = newest.store_id is None or newest.last_seen_at in (None, self.now)
        if not is_listed:
            return f"{newest.key} is not in the list, so builders may read {index.hidden_by}"
        return f"builders read {index.hidden_by}, created later, in its place"

    def keep_index(self, index: Index, reason: str) -> None:
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
            self.keep_entry(marked.entry, "its index is not rewritten, so it may still be needed")
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
            self.keep_entry(marked.entry, f"{left[0]} still names it and is not rewritten")
        elif shield := self._shield(marked.entry):
            until = _say_time(shield.created_at + self.grace)
            self.keep_entry(
                marked.entry,
                f"{shield.key} in {shield.ref}, whose content is not known, is newer and may need "
                f"it until {until}",
            )
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
            until = _say_time(since + self.grace)
            self.keep_entry(marked.entry, f"{state} since {_say_time(since)}, kept until {until}")
            return
        if self.export and state is State.DANGLING:
            self.deferred = self.export
            self.keep_entry(marked.entry, f"deferred: {self.export}")
            return
        reason = f"{state} since {_say_time(since)}: {marked.reason}"
        if marked.state is State.NEWEST:
            what = "manifest" if isinstance(marked.entry.parsed, BlobKey) else "generation"
            reason = f"{state} by the {what} that this run writes"
        self.deletes.append(DeleteEntry(marked.entry, state, reason, after))

    def keep_entry(self, entry: KnownEntry, reason: str) -> None:
        self.keeps.append(Keep(entry.key, entry.ref, reason, entry.size, entry.store_id))


def _say_used_by_builds(index: Index) -> str:
    if index.id.is_tag:
        return (
            "somebody else has written it, so it is not ours to write: let builds export to "
            "another tag, or choose another merged_tag"
        )
    return (
        f"a build has exported {index.used_by_builds}, so it is not ours to write: let builds "
        "export to another scope, or choose another merged_scope"
    )


def _say_sources(index: Index) -> str:
    one, several = ("tag", "tags") if index.id.is_tag else ("index", "indexes")
    others = (
        f"the other {one}" if index.merged_with == 1 else f"the {index.merged_with} other {several}"
    )
    return others if index.id.is_tag else f"{others} of {index.id.ref}"


def _say_new_merge(index: Index) -> str:
    return f"merge {_say_sources(index)}"


def _say_changed_merge(index: Index, config: CacheConfig) -> str:
    reason = f"follow {_say_sources(index)}"
    changes = [
        f"{len(blobs)} {'blob' if len(blobs) == 1 else 'blobs'} {how}"
        for how, blobs in (
            ("more", index.merged.blobs - config.blobs),
            ("less", config.blobs - index.merged.blobs),
        )
        if blobs
    ]
    return f"{reason}: {', '.join(changes)}" if changes else reason


def _say_restored(index: Index) -> str:
    return f"none of its generations exists; {index.merged.result_count} results are remembered"


def _say_settled(index: Index) -> str:
    if not index.newest:
        return "nothing is left of it"
    what = "manifest" if index.id.is_tag else "newest generation"
    return f"its {what} says all that can be used{_say_left_out(index)}"


def _has_room_for_sink(index: Index) -> bool:
    """Return whether importers still read an index of a directory that has a sink, too."""
    return not index.id.is_tag or fits_importers(index.merged)


def _say_left_out(index: Index) -> str:
    """Say what importers have no room for: they refuse an index that is too large."""
    if not index.left_out:
        return ""
    results = "1 result" if index.left_out == 1 else f"{index.left_out:,} results"
    return f"; {results}, used longest ago, left out: importers read {IMPORT_LIMIT:,} bytes"


def _say_merge(
    index: Index, newest: KnownGeneration, config: CacheConfig, broken: frozenset[Digest]
) -> str:
    others = [one for one in index.inputs if one.manifest_id != newest.manifest_id]
    reasons = []
    if others:
        reasons.append(f"merge {_say_generations(others)} into generation {newest.number}")
    gone = config.blobs - index.merged.blobs
    if lost := gone & broken:
        reasons.append(f"drop {len(lost)} {'blob' if len(lost) == 1 else 'blobs'} without content")
    if gone := gone - broken:
        are = "blob that is" if len(gone) == 1 else "blobs that are"
        reasons.append(f"drop {len(gone)} {are} gone or not needed")
    if not reasons:
        reasons.append("drop keys and results that are of no use")
    return "; ".join(reasons)


def _say_generations(generations: Iterable[KnownGeneration]) -> str:
    numbers = [generation.number for generation in generations]
    if len(numbers) > _FEW:
        return f"{len(numbers)} generations ({numbers[0]} to {numbers[-1]})"
    return f"generation {' and '.join(map(str, numbers))}"


def _say_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
