"""A store in memory: all that a store has to be. It stands for those that are still to come."""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from maintainer.cacheconfig import (
    NO_REF,
    BlobKey,
    Digest,
    IndexId,
    Scope,
    content_digest,
    encode,
)
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import ChangedError, StoreError
from maintainer.model.entry import Access, KnownEntry, Listing, StoredEntry, StoreLimits
from maintainer.model.index import ReadGeneration
from maintainer.model.memory import Memory
from maintainer.model.store import Abilities, StoreFacts
from maintainer.stores import base
from maintainer.stores.base import RunContext, SwapResult, Versions
from maintainer.stores.decoding import read_content
from maintainer.stores.http.requests import RequestLog


@dataclass
class Vault:
    """What is stored: blobs with their times, and indexes under names, with versions that count."""

    blobs: MutableMapping[str, datetime] = field(default_factory=dict)
    """By digest; what other tools store goes by a name."""
    indexes: MutableMapping[str, tuple[int, bytes, datetime]] = field(default_factory=dict)
    exports: int = 0
    """How often an index was written."""
    step: Callable[[], None] = lambda: None
    """Called before each thing that a run does to it."""

    def write(self, name: str, content: bytes, at: datetime) -> None:
        """Write an index over what has its name."""
        self.exports += 1
        self.indexes[name] = (self.exports, content, at)


class MemoryStore:
    """A vault, as a run sees it."""

    abilities = Abilities()
    ignored = ()

    def __init__(self, vault: Vault) -> None:
        self.name = "memory:"
        self.access = Access(frozenset({NO_REF}), frozenset({NO_REF}))
        self.requests = RequestLog()
        self._vault = vault
        self._seen: dict[str, int] = {}
        """The versions that are known."""

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return those of the settings, or assume some."""
        quota = context.settings.quota
        return StoreLimits(int(quota) if quota else None)

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List the blobs."""
        self._vault.step()
        blobs = sorted(self._vault.blobs.items())
        return Listing(tuple(_entry(digest, at) for digest, at in blobs), complete=True)

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Read the indexes whose version is new."""
        self._vault.step()
        self._seen = {name: version for name, (version, _, _) in self._vault.indexes.items()}
        read, found = [], set()
        for name, version in self._seen.items():
            place = known.places.get(IndexId(NO_REF, Scope(name)), {}).get(1)
            if place and place.location == str(version):
                found.add(place.generation_id)
            else:
                read.append(self._read(name))
        remembered = {
            one.generation_id for places in known.places.values() for one in places.values()
        }
        replaced_at = max((at for _, _, at in self._vault.indexes.values()), default=None)
        gone, facts = frozenset(remembered - found), StoreFacts(quiet_since=replaced_at)
        return Versions(tuple(read), found=frozenset(found), gone=gone, facts=facts)

    def _read(self, name: str) -> ReadGeneration:
        version, content, at = self._vault.indexes[name]
        return read_content(IndexId(NO_REF, Scope(name)), 1, content, at, location=str(version))

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> base.Existing:
        """Look blobs up."""
        self._vault.step()
        return base.Existing(frozenset(blob for blob in blobs if blob in self._vault.blobs))

    async def check(self, blob: Digest) -> base.ContentCheck:
        """Look a blob up: what is there has its content."""
        return base.ContentCheck(is_found=blob in self._vault.blobs, is_readable=True)

    async def touch(self, key: str) -> bool:
        """Do nothing: nobody evicts here."""
        return bool(key)

    async def new_versions(self) -> Sequence[base.NewVersion]:
        """Return none: no blob is deleted once an index was written."""
        return ()

    async def read(self, version: base.NewVersion) -> ReadGeneration:
        """Refuse: there are no new versions."""
        raise StoreError(f"{version.index} is not new")

    async def swap(
        self, changes: Sequence[base.Change], context: RunContext
    ) -> Sequence[SwapResult]:
        """Write indexes whose version is still the one that is known."""
        return [self._swap(change, context.clock()) for change in changes]

    def _swap(self, change: base.Change, now: datetime) -> SwapResult:
        self._vault.step()
        name = str(change.index)
        current = self._vault.indexes.get(name, (0, b"", now))[0]
        if current != self._seen.get(name, 0):
            self._seen[name] = current
            return base.Conflict(self._read(name))
        content = encode(change.stored)
        self._vault.write(name, content, now)
        self._seen[name] = self._vault.exports
        return base.Swapped(self._read(name), {name: len(content)})

    def activity(self, since: base.Since, context: RunContext) -> None:
        """Return nothing: `delete` looks itself."""

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete a blob, unless somebody else has written an index, or the blob, since."""
        del context
        self._vault.step()
        versions = {name: version for name, (version, _, _) in self._vault.indexes.items()}
        at = self._vault.blobs.get(entry.key, entry.created_at)
        if versions != self._seen or at != entry.created_at:
            raise ChangedError("a build has exported since, and may need it")
        return self._vault.blobs.pop(entry.key, None) is not None


def _entry(name: str, at: datetime) -> StoredEntry:
    number = int(content_digest(name.encode())[7:22], 16)
    parsed = BlobKey(Digest(name)) if is_digest(Digest(name)) else None
    return StoredEntry(number, NO_REF, name, "blob", 10, at, at, parsed)
