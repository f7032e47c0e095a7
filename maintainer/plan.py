"""Plan: what to write, what to delete, and what to leave alone, each with its reason. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from maintainer.cacheconfig import CacheConfig, Digest, IndexKey, Ref, merge
from maintainer.mark import Line, LineId, Mark, Marks, Shield, State
from maintainer.snapshot import KnownEntry, KnownIndex


@dataclass(frozen=True, slots=True)
class WriteIndex:
    """Write this index as the next generation."""

    line: LineId
    key: IndexKey
    content: CacheConfig
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteEntry:
    """Delete this entry, after the indexes in `after` were rewritten and read back."""

    entry: KnownEntry
    state: State
    reason: str
    after: frozenset[LineId] = frozenset()


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave this alone."""

    subject: str
    """A key, or what the decision is about."""
    ref: Ref
    reason: str
    size: int | None = None
    """Bytes."""
    store_id: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run will do; what a dry run prints."""

    writes: tuple[WriteIndex, ...]
    deletes: tuple[DeleteEntry, ...]
    """In the order of their deletion: superseded generations first, then what dangles."""
    keeps: tuple[Keep, ...]
    settled: tuple[LineId, ...]
    """The indexes whose newest generation already says what their merge would."""


def make_plan(marks: Marks, *, grace: timedelta) -> Plan:
    """Decide from what was marked, the grace period, and the time of the snapshot."""
    planner = _Planner(marks, grace)
    for line in marks.lines:
        planner.plan_line(line)
    for marked in marks.marks:
        planner.plan_entry(marked)
    return Plan(
        writes=tuple(planner.writes.values()),
        deletes=tuple(sorted(planner.deletes, key=_order)),
        keeps=tuple(planner.keeps),
        settled=tuple(sorted(planner.settled)),
    )


def _order(delete: DeleteEntry) -> tuple[bool, datetime, int]:
    return delete.state is not State.SUPERSEDED, delete.entry.created_at, delete.entry.store_id


class _Planner:
    def __init__(self, marks: Marks, grace: timedelta) -> None:
        self.marks = marks
        self.now = marks.snapshot.now
        self.grace = grace
        self.writes: dict[LineId, WriteIndex] = {}
        self.deletes: list[DeleteEntry] = []
        self.keeps: list[Keep] = []
        self.settled: set[LineId] = set()
        self.blocked = self._why_nothing_may_be_swept()
        self.named_by: dict[Digest, set[LineId]] = {}
        for line in marks.lines:
            for blob in line.named_by_newest:
                self.named_by.setdefault(blob, set()).add(line.id)

    def _why_nothing_may_be_swept(self) -> str | None:
        """Tell why no blob may be deleted in this run, if so: what is needed is not all known."""
        if self.marks.snapshot.unread:
            index = self.marks.snapshot.unread[0]
            return f"{index.key} could not be read this time ({index.problem}) and may need it"
        if not self.marks.snapshot.listing_complete:
            return "entries went while the list was read, so an index may have been missed"
        return None

    def plan_line(self, line: Line) -> None:
        if line.id.signed:
            self.keep_line(line, "signed indexes are never rewritten")
            return
        reason = self._why_write(line)
        if reason is None:
            self.settled.add(line.id)
            self.keep_line(line, "its newest generation says all that can be used")
        elif line.id.ref not in self.marks.snapshot.access.writable:
            self.keep_line(line, f"the token cannot write {line.id.ref}; left to do: {reason}")
        elif line.unread and line.newest is None:
            problem = line.unread[-1].problem
            self.keep_line(line, f"its newest generation could not be read this time: {problem}")
        else:
            key = line.id.key.with_generation(line.highest + 1)
            self.writes[line.id] = WriteIndex(line.id, key, line.merged, reason)

    def _why_write(self, line: Line) -> str | None:
        newest = line.newest
        if newest is None:
            if line.unread:
                return "merge its generations"
            return _say_restored(line) if line.merged.records else None
        if newest.config is None:
            return f"generation {newest.key.generation} is not valid: {newest.violation}"
        if merge([newest.config]) != line.merged:
            return _say_merge(line, newest, newest.config)
        if line.hidden_by:
            return f"builders that do not sign read {line.hidden_by}, created later, in its place"
        return None

    def keep_line(self, line: Line, reason: str) -> None:
        subject = line.id.key.prefix.removesuffix("#")
        self.keeps.append(Keep(subject, line.id.ref, reason))

    def plan_entry(self, marked: Mark) -> None:
        if marked.state is State.DANGLING:
            self._plan_dangling(marked)
        elif marked.state in (State.SUPERSEDED, State.NEWEST):
            self._plan_generation(marked)
        elif marked.state is State.UNREAD:
            self.keep_entry(marked.entry, marked.reason)

    def _plan_generation(self, marked: Mark) -> None:
        line = marked.line
        if line is None or (marked.state is State.NEWEST and line not in self.writes):
            return
        if line not in self.writes and line not in self.settled:
            self.keep_entry(marked.entry, "its index was not rewritten, so it may still be needed")
            return
        after = frozenset({line} & self.writes.keys())
        self._delete_after_grace(marked, State.SUPERSEDED, after)

    def _plan_dangling(self, marked: Mark) -> None:
        digest = getattr(marked.entry.parsed, "digest", Digest(""))
        namers = self.named_by.get(digest, set())
        if self.blocked:
            self.keep_entry(marked.entry, self.blocked)
        elif left := sorted(namers - self.writes.keys()):
            prefix = left[0].key.prefix.removesuffix("#")
            self.keep_entry(marked.entry, f"{prefix} still names it and is not rewritten")
        elif shield := self._shield(marked.entry):
            self.keep_entry(
                marked.entry,
                f"{shield.key} in {shield.ref}, whose content is not known, is newer and may need "
                f"it until {_say_time(shield.created_at + self.grace)}",
            )
        else:
            self._delete_after_grace(marked, State.DANGLING, frozenset(namers))

    def _shield(self, entry: KnownEntry) -> Shield | None:
        for shield in self.marks.shields:
            if self.now - shield.created_at < self.grace and shield.created_at >= entry.created_at:
                return shield
        return None

    def _delete_after_grace(self, marked: Mark, state: State, after: frozenset[LineId]) -> None:
        since = marked.since or self.now
        if self.now - since < self.grace:
            until = _say_time(since + self.grace)
            self.keep_entry(marked.entry, f"{state} since {_say_time(since)}, kept until {until}")
            return
        reason = f"{state} since {_say_time(since)}: {marked.reason}"
        if marked.state is State.NEWEST:
            reason = f"{state} by the generation that this run writes"
        self.deletes.append(DeleteEntry(marked.entry, state, reason, after))

    def keep_entry(self, entry: KnownEntry, reason: str) -> None:
        self.keeps.append(Keep(entry.key, entry.ref, reason, entry.size, entry.store_id))


def _say_restored(line: Line) -> str:
    return f"none of its generations exists; {line.merged.result_count} results are remembered"


def _say_merge(line: Line, newest: KnownIndex, config: CacheConfig) -> str:
    merged = [index for index in line.inputs if index.key != newest.key]
    reasons = []
    if merged:
        reasons.append(f"merge {_say_generations(merged)} into generation {newest.key.generation}")
    if gone := config.blobs - line.merged.blobs:
        reasons.append(f"drop {len(gone)} blobs that are gone or not needed")
    if not reasons:
        reasons.append("unite what the newest generation says twice")
    return "; ".join(reasons)


def _say_generations(indexes: Iterable[KnownIndex]) -> str:
    numbers = [index.key.generation for index in indexes]
    if len(numbers) > 3:  # noqa: PLR2004
        return f"{len(numbers)} generations ({numbers[0]} to {numbers[-1]})"
    return f"generation {' and '.join(map(str, numbers))}"


def _say_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
