"""Mark: what is reachable, what is not, and since when. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexKey,
    Ref,
    Scope,
    SignatureKey,
    hash_ref,
    merge,
    prune,
)
from maintainer.snapshot import KnownEntry, KnownIndex, Snapshot, UnreadIndex


class State(StrEnum):
    """What an entry is to us."""

    REACHABLE = "reachable"
    """A blob that a live result needs, or the signature of an index that exists."""
    DANGLING = "dangling"
    """A blob or signature that nothing needs."""
    NEWEST = "newest"
    """The newest generation of an index."""
    SUPERSEDED = "superseded"
    """A generation whose live results the newest one has, or will have."""
    SIGNED = "signed"
    """A signed generation: read, never rewritten."""
    UNREAD = "unread"
    """A generation that could not be read this time."""
    UNREADABLE = "unreadable ref"
    """In a ref that the token cannot read."""
    FOREIGN = "foreign"
    """Not of our two kinds, or under a key that its ref does not write."""


@dataclass(frozen=True, slots=True, order=True)
class LineId:
    """All generations of one index: what a scope is in one ref."""

    ref: Ref
    scope: Scope
    signed: bool = False

    @property
    def key(self) -> IndexKey:
        """The key of its first generation."""
        return IndexKey(self.scope, hash_ref(self.ref), IndexKey.FIRST, self.signed)


@dataclass(frozen=True, slots=True)
class Line:
    """The generations of one index, and what they come to."""

    id: LineId
    generations: tuple[KnownIndex, ...]
    """Those that exist and were read, oldest first."""
    inputs: tuple[KnownIndex, ...]
    """Those that take part in the merge, remembered ones too, oldest first."""
    unread: tuple[UnreadIndex, ...]
    merged: CacheConfig
    """The merge of the inputs, pruned to what exists, in normal form."""
    highest: int
    """The highest generation that is known to have existed; 0 if none."""
    hidden_by: IndexKey | None = None
    """A signed index created later, which builders that do not sign would read instead."""

    @property
    def newest(self) -> KnownIndex | None:
        """The generation that builders read now, if it could be read."""
        newest = self.generations[-1] if self.generations else None
        if newest and any(index.key.generation > newest.key.generation for index in self.unread):
            return None
        return newest

    @property
    def named_by_newest(self) -> frozenset[Digest]:
        """The blobs that the newest generation names, live or not."""
        newest = self.newest
        return newest.config.blobs if newest and newest.config else frozenset()


@dataclass(frozen=True, slots=True)
class Mark:
    """What one entry is, and why."""

    entry: KnownEntry
    state: State
    reason: str
    since: datetime | None = None
    """Dangling or superseded since then."""
    line: LineId | None = None
    """Of a generation: the index that it belongs to."""


@dataclass(frozen=True, slots=True)
class Shield:
    """An index of unknown content, which may need any blob that is older than it."""

    key: str
    ref: Ref
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Marks:
    """Everything that a plan is made from, besides the settings."""

    snapshot: Snapshot
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    shields: tuple[Shield, ...]


def mark(snapshot: Snapshot) -> Marks:
    """Tell for each index what it comes to, and for each entry what it is.

    A blob is reachable when a live result of some index needs it, from the point of view of the
    token that reads it.
    """
    lines = _lines(snapshot)
    marker = _Marker(snapshot, lines)
    return Marks(
        snapshot=snapshot,
        lines=lines,
        marks=tuple(marker.mark(entry) for entry in snapshot.entries),
        shields=_shields(snapshot),
    )


def is_index_of(entry: KnownEntry) -> LineId | None:
    """Tell which index an entry is a generation of; None if its ref does not write such keys."""
    key = entry.parsed
    if not isinstance(key, IndexKey) or key.ref_hash != hash_ref(entry.ref):
        return None
    return LineId(entry.ref, key.scope, key.signed)


def _lines(snapshot: Snapshot) -> tuple[Line, ...]:
    known: defaultdict[LineId, list[KnownIndex]] = defaultdict(list)
    unread: defaultdict[LineId, list[UnreadIndex]] = defaultdict(list)
    for index in snapshot.indexes:
        known[LineId(index.ref, index.key.scope, index.key.signed)].append(index)
    for problem in snapshot.unread:
        unread[LineId(problem.ref, problem.key.scope, problem.key.signed)].append(problem)
    return tuple(
        _line(line, known[line], tuple(unread[line]), snapshot, known)
        for line in sorted({*known, *unread})
    )


def _line(
    line: LineId,
    indexes: Iterable[KnownIndex],
    unread: tuple[UnreadIndex, ...],
    snapshot: Snapshot,
    known: Mapping[LineId, list[KnownIndex]],
) -> Line:
    ordered = sorted(indexes, key=lambda index: (index.key.generation, index.manifest_id))
    generations = tuple(index for index in ordered if index.exists)
    inputs = tuple(index for index in ordered if index.config and not index.superseded)
    signed = LineId(line.ref, line.scope, signed=True)
    return Line(
        id=line,
        generations=generations,
        inputs=inputs,
        unread=unread,
        merged=_come_to(line, inputs, snapshot),
        highest=max(
            (
                *(index.key.generation for index in ordered),
                *(index.key.generation for index in unread),
            ),
            default=0,
        ),
        hidden_by=None if line.signed else _hidden_by(generations, known.get(signed, ())),
    )


def _come_to(line: LineId, inputs: Iterable[KnownIndex], snapshot: Snapshot) -> CacheConfig:
    configs: list[CacheConfig] = [index.config for index in inputs if index.config]
    if line.signed:
        # Nobody may merge these: each of them stands for itself.
        return merge(prune(config, snapshot.live_blobs) for config in configs)
    return prune(merge(configs), snapshot.live_blobs)


def _hidden_by(
    generations: tuple[KnownIndex, ...], signed: Iterable[KnownIndex]
) -> IndexKey | None:
    if not generations or generations[-1].store_id is None:
        return None
    newest = generations[-1]
    later = [
        index
        for index in signed
        if index.exists
        and index.store_id is not None
        and (index.created_at, index.store_id) > (newest.created_at, newest.store_id or 0)
    ]
    return max(later, key=lambda index: index.created_at).key if later else None


def _shields(snapshot: Snapshot) -> tuple[Shield, ...]:
    violated = {index.store_id for index in snapshot.indexes if index.violation}
    shields = [
        Shield(entry.key, entry.ref, entry.created_at)
        for entry in snapshot.entries
        if isinstance(entry.parsed, IndexKey)
        and (
            entry.ref not in snapshot.access.readable
            or entry.store_id in violated
            or is_index_of(entry) is None
        )
    ]
    return tuple(sorted(shields, key=lambda shield: (shield.created_at, shield.key), reverse=True))


class _Marker:
    """Marks entries one by one, against what all the indexes need together."""

    def __init__(self, snapshot: Snapshot, lines: tuple[Line, ...]) -> None:
        self.snapshot = snapshot
        self.lines = {line.id: line for line in lines}
        self.unread = {(index.ref, str(index.key)) for index in snapshot.unread}
        self.needed: dict[Digest, str] = {}
        self.named_now: dict[Digest, str] = {}
        self.named_until: dict[Digest, datetime] = {}
        self.successor: dict[int, datetime] = {}
        for line in lines:
            for blob in line.merged.blobs:
                self.needed.setdefault(blob, _say_line(line.id))
            for blob in line.named_by_newest:
                self.named_now.setdefault(blob, _say_line(line.id))
            self._remember_former_newest(line)
        self.signed_content = {
            index.content_digest: str(index.key) for index in snapshot.indexes if index.exists
        }

    def _remember_former_newest(self, line: Line) -> None:
        """Remember that a generation was needed, and what it names, until the next was there."""
        for index, following in zip(line.generations, line.generations[1:], strict=False):
            if index.store_id is not None:
                self.successor[index.store_id] = following.created_at
            for blob in index.config.blobs if index.config else ():
                until = self.named_until.get(blob, following.created_at)
                self.named_until[blob] = max(until, following.created_at)

    def mark(self, entry: KnownEntry) -> Mark:
        if entry.parsed is None:
            return Mark(entry, State.FOREIGN, "it belongs to another tool")
        if entry.ref not in self.snapshot.access.readable:
            return Mark(entry, State.UNREADABLE, f"the token cannot read {entry.ref}")
        if isinstance(entry.parsed, BlobKey):
            return self._mark_blob(entry, entry.parsed.digest)
        if isinstance(entry.parsed, SignatureKey):
            return self._mark_signature(entry, entry.parsed.digest)
        return self._mark_index(entry)

    def _mark_blob(self, entry: KnownEntry, digest: Digest) -> Mark:
        if digest in self.needed:
            return Mark(entry, State.REACHABLE, f"{self.needed[digest]} needs it")
        if digest in self.named_now:
            reason = f"{self.named_now[digest]} named it until this run, but no live result does"
            return Mark(entry, State.DANGLING, reason, self.snapshot.now)
        since = self._unneeded_since(entry, self.named_until.get(digest))
        return Mark(entry, State.DANGLING, "no live result of any index needs it", since)

    def _mark_signature(self, entry: KnownEntry, signed: Digest) -> Mark:
        if signed in self.signed_content:
            return Mark(entry, State.REACHABLE, f"it signs {self.signed_content[signed]}")
        since = self._unneeded_since(entry, None)
        return Mark(entry, State.DANGLING, "the index that it signs is gone", since)

    def _mark_index(self, entry: KnownEntry) -> Mark:
        line_id = is_index_of(entry)
        if line_id is None:
            return Mark(entry, State.FOREIGN, f"{entry.ref} does not write such a key")
        if (entry.ref, entry.key) in self.unread:
            reason = "it could not be read this time"
            return Mark(entry, State.UNREAD, reason, line=line_id)
        if line_id.signed:
            return Mark(entry, State.SIGNED, "signed indexes are never rewritten", line=line_id)
        newest = self.lines[line_id].generations[-1]
        if newest.store_id == entry.store_id:
            return Mark(entry, State.NEWEST, "builders read it", self.snapshot.now, line_id)
        since = self._unneeded_since(entry, self.successor.get(entry.store_id))
        reason = f"generation {newest.key.generation} is newer"
        return Mark(entry, State.SUPERSEDED, reason, since, line_id)

    def _unneeded_since(self, entry: KnownEntry, needed_until: datetime | None) -> datetime:
        """Tell since when nothing has needed an entry: never earlier than its last use.

        A build that finds a blob stored does not upload it again, and writes its index later: until
        then that look-up is all that shows that somebody needs the blob.
        """
        if entry.unneeded_since is not None:
            return max(entry.unneeded_since, entry.last_use_at)
        if entry.known_before:
            return self.snapshot.now
        return max(entry.last_use_at, needed_until or entry.last_use_at)


def _say_line(line: LineId) -> str:
    return f"{line.key.prefix.removesuffix('#')} ({line.ref})"
