"""Small caches in words, for tests of marking and planning.

    a_snapshot().with_blobs("base", "app").with_generation(1, ("base", "app")).build()

Blobs go by short names. A generation has one record for each of its chains, `key of base/app`,
whose result is the last layer of the chain with all the layers below it.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Self, TypedDict, Unpack

from msgspec.structs import replace as change

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    Layer,
    Record,
    Ref,
    Result,
    Scope,
    SignatureKey,
    Sink,
    content_digest,
    encode,
    parse_key,
)
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.model.entry import Access, KnownEntry
from maintainer.model.index import KnownGeneration, UnreadGeneration
from maintainer.model.reason import ClosedRef, NotMarked, Problem
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot
from maintainer.model.store import StoreFacts

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
MAIN = Ref("refs/heads/main")
RELEASE = Ref("refs/heads/release")
PULL = Ref("refs/pull/7/merge")
WEB = IndexId(MAIN, Scope("web"))
SIGNED_WEB = IndexId(MAIN, Scope("web"), signed=True)
MERGE = IndexId(MAIN, Scope("maintained"))
LONG_AGO = timedelta(days=30)

Chain = str | tuple[str, ...]
"""Names of blobs, from the bottom up; a name is a chain of one, () is a key without a result."""


def hours(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(hours=number)


def ago(age: timedelta) -> datetime:
    """Return the time that was so long before the snapshot."""
    return NOW - age


def blob(name: str) -> Digest:
    """Return the digest of a blob by its name."""
    return content_digest(name.encode())


def blob_key(name: str) -> str:
    """Return the key of a blob by its name."""
    return str(BlobKey(blob(name)))


def an_index(*chains: Chain) -> CacheConfig:
    """Return an index with a record for each chain, in no normal form."""
    layers: list[Layer] = []
    records: list[Record] = []
    for chain in chains:
        parent = NO_PARENT
        names = (chain,) if isinstance(chain, str) else chain
        for name in names:
            layers.append(_layer(name, parent))
            parent = len(layers) - 1
        result = Result((parent,), with_parents=True, created_at=Nanoseconds(0))
        results = (result,) if names else ()
        records.append(Record(f"key of {'/'.join(names)}", results, ()))
    return CacheConfig(tuple(layers), tuple(records))


def _layer(name: str, parent: int) -> Layer:
    return Layer(blob(name), parent, blob(f"content of {name}"), "", 10, Nanoseconds(0))


def a_snapshot(*, reading: Iterable[Ref] = (MAIN,), writing: Iterable[Ref] = (MAIN,)) -> "World":
    """Begin with an empty cache, from the point of view of a token."""
    return World(Access(frozenset(reading) | frozenset(writing), frozenset(writing)))


class Age(TypedDict, total=False):
    """Where an entry is, and how old."""

    ref: Ref
    age: timedelta
    """It was created so long ago."""
    used: timedelta
    """It was last used so long ago; by default, when it was created."""
    known: bool
    """Whether the graph has seen it before."""
    unreferenced_for: timedelta
    """The graph remembers that nothing has needed it for so long."""
    lost_for: timedelta
    """The graph remembers that its content has been gone for so long."""


class World:
    """A cache that is being described. By default everything in it is old, and nothing is known."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._entries: list[KnownEntry] = []
        self._generations: list[KnownGeneration] = []
        self._unread: list[UnreadGeneration] = []
        self._live: set[Digest] = set()
        self._broken: set[Digest] = set()
        self._read_by_builders: dict[IndexId, str] = {}
        self._complete = True
        self._closed: dict[Ref, ClosedRef] = {}

    def with_entry(self, key: str, **age: Unpack[Age]) -> Self:
        """Add an entry under any key."""
        parsed = parse_key(key)
        created = age.get("age", LONG_AGO)
        unreferenced_for = age.get("unreferenced_for")
        entry = KnownEntry(
            store_id=len(self._entries) + 1,
            ref=age.get("ref", MAIN),
            key=key,
            parsed=parsed,
            size=10,
            created_at=ago(created),
            last_accessed_at=ago(age.get("used", created)),
            known_before=age.get("known", unreferenced_for is not None),
            unreferenced_since=None if unreferenced_for is None else ago(unreferenced_for),
            state="",
            reason=NotMarked(),
            content_missing_since=ago(age["lost_for"]) if "lost_for" in age else None,
        )
        self._entries.append(entry)
        if isinstance(parsed, BlobKey) and entry.ref in self._access.readable:
            (self._broken if entry.content_missing_since else self._live).add(parsed.digest)
        return self

    def with_other_version(self, key: str) -> Self:
        """Add an entry with a key of BuildKit's, but of another version: another tool's."""
        self.with_entry(f"not {key}")
        self._entries[-1] = change(self._entries[-1], key=key)
        return self

    def with_unnumbered_entry(self, key: str, **age: Unpack[Age]) -> Self:
        """Add an entry of another tool that is listed without its number, or its times."""
        self.with_entry(key, **age)
        last = self._entries[-1]
        self._entries[-1] = change(last, store_id=-last.store_id)
        return self

    def with_blob(self, name: str, **age: Unpack[Age]) -> Self:
        """Add a blob."""
        return self.with_entry(blob_key(name), **age)

    def with_blobs(self, *names: str) -> Self:
        """Add blobs that have been there for long."""
        for name in names:
            self.with_blob(name)
        return self

    def with_signature(self, signed: Digest, **age: Unpack[Age]) -> Self:
        """Add the signature of the index of this digest."""
        return self.with_entry(str(SignatureKey(signed)), **age)

    def with_generation(
        self, number: int, *chains: Chain, of: IndexId = WEB, **age: Unpack[Age]
    ) -> Self:
        """Add a generation that is stored and was read."""
        return self.with_index(number, an_index(*chains), of=of, **age)

    def with_index(
        self, number: int, config: CacheConfig, *, of: IndexId = WEB, **age: Unpack[Age]
    ) -> Self:
        """Add a generation of any content."""
        age["ref"] = of.ref
        self.with_entry(str(of.key(number)), **age)
        return self._add(number, of, config, self._entries[-1])

    def by_a_build(self) -> Self:
        """Let the last generation be as a build exports it: without a sink."""
        self._generations[-1] = replace(self._generations[-1], sink=None)
        return self

    def with_invalid_generation(
        self, number: int, *, of: IndexId = WEB, **age: Unpack[Age]
    ) -> Self:
        """Add a generation that an importer refuses."""
        age["ref"] = of.ref
        self.with_entry(str(of.key(number)), **age)
        return self._add(number, of, None, self._entries[-1])

    def with_unread_generation(
        self, number: int, problem: str = "the server is in trouble", *, of: IndexId = WEB
    ) -> Self:
        """Add a generation that could not be read this time; not even its number if that is 0."""
        if number:
            self.with_entry(str(of.key(number)), ref=of.ref)
        self._unread.append(UnreadGeneration(of, number, Problem(problem)))
        return self

    def remembering(self, number: int, *chains: Chain, of: IndexId = WEB) -> Self:
        """Remember a generation that is not stored any more."""
        return self._add(number, of, an_index(*chains), None)

    def without(self, *names: str) -> Self:
        """Take blobs out of the store."""
        gone = set(map(blob_key, names))
        self._entries = [entry for entry in self._entries if entry.key not in gone]
        self._live -= set(map(blob, names))
        return self

    def where_builders_read(self, key: str, *, of: IndexId = WEB) -> Self:
        """Let builders that do not sign get this entry when they ask for an index."""
        self._read_by_builders[of] = key
        return self

    def where_closed(self, ref: Ref, reason: ClosedRef) -> Self:
        """Let a ref be closed, so that no build reads it any more."""
        self._closed[ref] = reason
        return self

    def listed_in_part(self) -> Self:
        """Let entries have come or gone while they were listed."""
        self._complete = False
        return self

    def build(self) -> Snapshot:
        """Return the snapshot. Builders read the newest generation, unless set otherwise."""
        read = {
            one.index: str(one.key)
            for one in sorted(self._generations, key=lambda one: one.number)
            if one.exists and not one.index.signed
        }
        return Snapshot(
            now=NOW,
            access=self._access,
            entries=tuple(self._entries),
            generations=tuple(self._generations),
            unread=tuple(self._unread),
            live_blobs=frozenset(self._live),
            read_by_builders=read | self._read_by_builders,
            listing_complete=self._complete,
            memory=self._memory(),
            broken_blobs=frozenset(self._broken),
            facts=StoreFacts(closed_refs=self._closed),
        )

    def _memory(self) -> dict[IndexId, Remembered]:
        """Remember what runs have read of each index."""
        memory: dict[IndexId, Remembered] = {}
        for one in self._generations:
            known = memory.get(one.index, Remembered())
            if one.config and one.index.is_named:
                known = known.with_export(one.config, None, NOW.date())
            elif one.config and not one.index.signed and one.sink is not Sink.MERGE:
                known = known.with_generations([one.config])
            memory[one.index] = replace(known, highest=max(known.highest, one.number))
        return memory

    def _add(
        self, number: int, index: IndexId, config: CacheConfig | None, entry: KnownEntry | None
    ) -> Self:
        content = b"{" if config is None else encode(config)
        generation = KnownGeneration(
            generation_id=len(self._generations) + 1,
            index=index,
            number=number,
            content_digest=content_digest(content),
            config=config,
            violation="record 0: it is broken" if config is None else None,
            created_at=entry.created_at if entry else ago(LONG_AGO),
            store_id=entry.store_id if entry else None,
            exists=entry is not None,
            sink=None if config is None else Sink.REWRITE,
        )
        self._generations.append(generation)
        return self
