"""The promises that hold after every request of a run, told without the code that must keep them.

I1: nothing is deleted that a build may be about to use.
I2: an index that is written passes the importer's rules and names only blobs that existed when the
run looked.
I4: nothing of others, and nothing in a ref that the token cannot read, is deleted or written.

What builds and the host do to the cache is done to the emulator's state directly; what a run does
comes as requests. So a request tells whose doing a change was.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from maintainer.emulator import ActionsCache, Entry, Request
from tests.integration.world import World

_VERSION = hashlib.sha256(b"|go-actionscache-1.0").hexdigest()
_BLOB = re.compile(r"buildkit-blob-1-(sha256:[0-9a-f]{64})(-sig)?", re.ASCII)
_INDEX = re.compile(r"(?s)(index-.+-1-([0-9a-f]{8})(-sig)?)#([1-9][0-9]*)", re.ASCII)
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-zA-Z=_-]+", re.ASCII)
_CARRIED_OUT = {"stored-but-failed", "lost-answer", "gone", "truncated", "headers"}
"""Faults that let a request be carried out."""
_OK = range(200, 300)


class RefusedIndexError(Exception):
    """An importer would refuse this index."""


@dataclass(frozen=True)
class ReadIndex:
    """What an importer makes of an index."""

    blobs: frozenset[str]
    """All that it names."""
    results: tuple[frozenset[str], ...]
    """The blobs that each result needs."""

    def needs(self, blob: str, live: Collection[str]) -> bool:
        """Return whether a result that can be used needs `blob`."""
        return any(blob in result and all(one in live for one in result) for result in self.results)


@lru_cache(maxsize=256)  # The same indexes are read after every request.
def import_index(content: bytes) -> ReadIndex:
    """Read an index as BuildKit's importer does. Raises RefusedIndexError."""
    try:
        index = json.loads(content)
        layers, records = index.get("layers") or [], index.get("records") or []
        parents = [_parent(layer, len(layers)) for layer in layers]
        chains = [_downwards(parents, position) for position in range(len(layers))]
        links = [_links(record, len(records)) for record in records]
        _check_loops(links)
        blobs = [str(layer["blob"]) for layer in layers]
        results = [
            frozenset(blobs[layer] for layer in needed)
            for record in records
            for needed in _results(record, chains)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RefusedIndexError(repr(error)) from None
    return ReadIndex(frozenset(blobs), tuple(results))


def _parent(layer: Mapping[str, Any], count: int) -> int:
    if not _DIGEST.fullmatch(layer["blob"]) or not layer["annotations"]["diffID"]:
        raise RefusedIndexError("a layer lacks its blob or diffID")
    parent = int(layer.get("parent", 0))  # Go leaves zeros out; none is -1.
    if not -1 <= parent < count:
        raise RefusedIndexError("a parent is out of range")
    return parent


def _downwards(parents: list[int], layer: int) -> tuple[int, ...]:
    chain: list[int] = []
    while layer != -1:
        if len(chain) == len(parents):
            raise RefusedIndexError("parents loop")
        chain.append(layer)
        layer = parents[layer]
    return tuple(chain)


def _links(record: Mapping[str, Any], count: int) -> set[int]:
    if not record["digest"]:
        raise RefusedIndexError("a record lacks its digest")
    linked: set[int] = set()
    for alternatives in record.get("inputs") or []:
        if not alternatives:
            raise RefusedIndexError("an input is empty")
        linked |= {int(link["link"]) for link in alternatives}
    if any(not 0 <= link < count for link in linked):
        raise RefusedIndexError("a link is out of range")
    return linked


def _check_loops(links: list[set[int]]) -> None:
    try:
        TopologicalSorter(dict(enumerate(links))).prepare()
    except CycleError:
        raise RefusedIndexError("links loop") from None


def _results(record: Mapping[str, Any], chains: list[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    for result in record.get("layers") or []:
        yield chains[_at(result["layer"], chains)]
    for result in record.get("chains") or []:
        yield tuple(_at(layer, chains) for layer in result["layers"])


def _at(layer: int, chains: list[tuple[int, ...]]) -> int:
    if not 0 <= layer < len(chains):
        raise RefusedIndexError("a layer is out of range")
    return layer


@dataclass
class Watcher:
    """Watches the requests of one run at a time: `begin`, then `before` and `after` each of them.

    An index of a build counts from the run's next look at the list on, and one that the host takes
    away goes on counting until then: between looking and deleting nobody can know of it.
    """

    cache: ActionsCache
    problems: list[str] = field(default_factory=list)
    deleted: list[Entry] = field(default_factory=list)
    """What runs have deleted so far."""
    written: list[Entry] = field(default_factory=list)
    """The indexes that runs have written so far."""

    def __post_init__(self) -> None:
        self._read: dict[int, ReadIndex | None] = {}
        self._entries: dict[int, Entry] = {}
        self._needed_until: dict[int, datetime] = {}
        self._written_by_run_of: dict[int, datetime] = {}
        self._taken: list[Entry] = []
        """What others have taken away since the run has looked there."""
        self._listing = self._looked = False

    def begin(self, *, grace: timedelta, readable: Collection[str]) -> None:
        """Note that a run with these settings and rights begins."""
        self._grace = grace
        self._readable = frozenset(readable)
        self._began_at = self.cache.clock()
        self._seen_blobs: set[str] = set()
        self._listed: set[int] = set()
        self._taken.clear()
        self._listing = self._looked = False
        self._look()
        self._remember_who_was_newest()

    def before(self, request: Request) -> None:
        """Note that a request has come in."""
        self._look()
        asked = "" if request.kind == "list" else request.key
        if request.kind in ("list", "look-up") and asked is not None:
            self._taken = [entry for entry in self._taken if not entry.key.startswith(asked)]
            self._note_newest()
        if request.kind == "list":
            if not self._listing:
                self._listed = set(self._entries)
            self._listing = True
        else:
            self._listing = False

    def after(self, request: Request) -> None:
        """Note that a request has been carried out, or has failed."""
        carried_out = request.fault in _CARRIED_OUT or (request.status or 0) in _OK
        if carried_out and request.kind == "delete":
            self._check_deleted(request)
        self._look(deleted=request.path.rsplit("/", 1)[1] if request.kind == "delete" else "")
        if carried_out and request.kind == "finalize":
            self._check_written(request)
        if request.kind == "reserve" and not _INDEX.fullmatch(request.key or ""):
            self._say(request, "I4", "what is reserved is no index")

    def _look(self, deleted: str = "") -> None:
        """See what there is now, whoever has changed it but for the one that the run deleted."""
        entries = {entry.id: entry for entry in self.cache.entries()}
        if entries.keys() == self._entries.keys() and self._looked:
            return
        gone = self._entries.keys() - entries.keys()
        self._taken += [self._entries[one] for one in sorted(gone) if str(one) != deleted]
        self._entries, self._looked = entries, True
        self._seen_blobs |= self._live(self._readable)
        self._note_newest()

    def _note_newest(self) -> None:
        for entry in self._newest(self._taken):
            known = self._needed_until.get(entry.id, self._began_at)
            self._needed_until[entry.id] = max(known, self._began_at)

    def _remember_who_was_newest(self) -> None:
        """Return until when each generation was the newest: until a later one was created."""
        for generations in self._by_index(self._entries.values()).values():
            for entry in generations:
                later = [
                    self._written_by_run_of.get(other.id, other.created_at)
                    for other in generations
                    if (other.created_at, other.id) > (entry.created_at, entry.id)
                ]
                if later:
                    known = self._needed_until.get(entry.id, min(later))
                    self._needed_until[entry.id] = max(known, min(later))

    def _by_index(self, entries: Collection[Entry]) -> dict[tuple[str, str], list[Entry]]:
        indexes: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            match = _INDEX.fullmatch(entry.key)
            if match and entry.version == _VERSION and match[2] == _hash(entry.ref):
                indexes.setdefault((entry.ref, match[1]), []).append(entry)
        return indexes

    def _newest(self, taken: Collection[Entry] = ()) -> list[Entry]:
        """Return what builders may get: the highest number, and what was created last."""
        newest = []
        for generations in self._by_index([*self._entries.values(), *taken]).values():
            newest.append(max(generations, key=lambda e: int(e.key.rsplit("#", 1)[1])))
            newest.append(max(generations, key=lambda e: (e.created_at, e.id)))
        return newest

    def _live(self, refs: Collection[str], *, downloadable: bool = False) -> set[str]:
        return {
            match[1]
            for entry in self._entries.values()
            if entry.ref in refs
            and not (downloadable and entry.lost)
            and (match := _BLOB.fullmatch(entry.key))
            and not match[2]
        }

    def _import(self, entry: Entry) -> ReadIndex | None:
        """Read a generation; None if builds cannot use it either."""
        if entry.id not in self._read:
            try:
                self._read[entry.id] = import_index(entry.content or b"")
            except RefusedIndexError:
                self._read[entry.id] = None
        return self._read[entry.id]

    def _check_deleted(self, request: Request) -> None:
        number = request.path.rsplit("/", 1)[1]
        entry = self._entries.get(int(number)) if number.isdigit() else None
        if entry is None or self.cache.get(entry.id) is not None:
            return
        self.deleted.append(entry)
        blob, index = _BLOB.fullmatch(entry.key), _INDEX.fullmatch(entry.key)
        if entry.version != _VERSION or not (blob or index):
            self._say(request, "I4", f"{entry.key} is not ours, and was deleted")
        if entry.ref not in self._readable:
            self._say(request, "I4", f"{entry.key} in {entry.ref} was deleted, which is unreadable")
        if entry.lost:
            return  # Whoever finds it fails, so nobody may miss it.
        if self.cache.clock() - entry.created_at < self._grace:
            self._say(request, "I1", f"{entry.key} was deleted younger than the grace period")
        if index:
            self._check_generation(request, entry)
        if blob and not blob[2]:
            for protector in self._protectors():
                live = self._live(self._readable | {protector.ref}, downloadable=True)
                read = self._import(protector)
                if read and read.needs(blob[1], live):
                    name = f"{protector.key} in {protector.ref}"
                    self._say(request, "I1", f"{entry.key} was deleted, which {name} needs")

    def _check_generation(self, request: Request, entry: Entry) -> None:
        if any(entry.id == newest.id for newest in self._newest(self._taken)):
            self._say(request, "I1", f"{entry.key} was deleted, which builds read")
        elif self._was_newest_lately(entry):
            self._say(request, "I1", f"{entry.key} was deleted, which builds read a while ago")

    def _protectors(self) -> list[Entry]:
        """Return the indexes whose live results must stay."""
        newest = {entry.id for entry in self._newest()}
        protectors = []
        for generations in self._by_index(self._entries.values()).values():
            for entry in generations:
                readable = entry.ref in self._readable
                young = self.cache.clock() - entry.created_at < self._grace
                lately = entry.id in newest or self._was_newest_lately(entry)
                if entry.id in self._listed and (lately if readable else young):
                    protectors.append(entry)
        return protectors

    def _was_newest_lately(self, entry: Entry) -> bool:
        until = self._needed_until.get(entry.id)
        return until is not None and self.cache.clock() - until < self._grace

    def _check_written(self, request: Request) -> None:
        written = [e for e in self._entries.values() if e.key == request.key]
        entry = max(written, key=lambda e: e.id, default=None)
        if entry is None or any(entry.id == other.id for other in self.written):
            return
        self.written.append(entry)
        self._written_by_run_of[entry.id] = self._began_at
        match = _INDEX.fullmatch(entry.key)
        if match is None or match[3] or match[2] != _hash(entry.ref):
            self._say(request, "I4", f"{entry.key} was written to {entry.ref}")
        if entry.ref not in self._readable or entry.version != _VERSION:
            self._say(request, "I4", f"{entry.key} in {entry.ref} is no place of ours")
        try:
            read = import_index(entry.content or b"")
        except RefusedIndexError as error:
            self._say(request, "I2", f"{entry.key} would be refused: {error}")
        else:
            if lost := sorted(read.blobs - self._seen_blobs):
                self._say(request, "I2", f"{entry.key} names {lost}, which were gone")

    def _say(self, request: Request, promise: str, problem: str) -> None:
        self.problems.append(f"{promise}: request {request.number} ({request.kind}): {problem}")


def _hash(ref: str) -> str:
    return hashlib.sha256(ref.encode()).hexdigest()[:8]


@contextmanager
def watched(world: World, *, grace: timedelta, readable: Collection[str]) -> Iterator[Watcher]:
    """Watch one run, and go on counting its requests; fails at the end if a promise was broken."""
    watcher = Watcher(world.cache)
    world.running.call(lambda _: watcher.begin(grace=grace, readable=readable))

    def after(request: Request) -> None:
        world.requests[request.kind] += 1
        watcher.after(request)

    world.running.observe(before=watcher.before, after=after)
    yield watcher
    assert watcher.problems == []
