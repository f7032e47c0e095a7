"""A cache in an object storage: blobs under one prefix, and under others an index for each name.

What differs between services is behind `Objects`. The guards are here. A blob is deleted only if
nobody has written it for `Layout.least_grace`, and if neither it nor an index has changed in a way
that needs it, as looked up directly before. An index is written only if it is still the one that
was read.
"""

import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import anyio

from maintainer.cacheconfig import (
    NO_REF,
    BlobKey,
    Digest,
    IndexId,
    content_digest,
    encode,
    with_sink,
)
from maintainer.concurrency import for_each
from maintainer.errors import ChangedError, StoreError, UnfinishedError, UnreadableError
from maintainer.model import reason as reasons
from maintainer.model.decision import Keep
from maintainer.model.entry import Access, KnownEntry, Listing, StoredEntry, StoreLimits
from maintainer.model.index import ReadGeneration, UnreadGeneration
from maintainer.model.memory import Memory
from maintainer.model.reason import StoreNote
from maintainer.model.store import Abilities, StoreFacts
from maintainer.sanitize import printable
from maintainer.spool import Spool
from maintainer.stores.base import (
    Change,
    Conflict,
    ContentCheck,
    Existing,
    NewVersion,
    Refused,
    RunContext,
    Since,
    Swapped,
    SwapResult,
    Versions,
)
from maintainer.stores.decoding import read_content
from maintainer.stores.layout import Layout
from maintainer.stores.requests import RequestLog

log = logging.getLogger(__name__)

NUMBER = 1
"""A name has one index at a time, and keeps no count of them."""
_BATCH = 100
"""How many blobs are looked up again before they are deleted by one request."""
_OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Object:
    """An object, as a list or a look-up shows it."""

    key: str
    size: int
    """Bytes."""
    modified_at: datetime
    tag: str
    """Of its content: another content has another one."""
    answered_at: datetime | None = None
    """The time of the service's clock at a look-up, if it reports that."""


class Objects(Protocol):
    """The requests to one bucket. Each may raise StoreError."""

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""

    def list(self, prefix: str) -> AsyncIterator[Sequence[Object]]:
        """List the objects whose keys begin like this, some at a time."""

    async def look(self, key: str) -> Object | None:
        """Look an object up; None if there is none."""

    async def get(self, key: str, *, limit: int) -> tuple[Object, bytes] | None:
        """Read an object of at most so many bytes; None if there is none.

        Raises UnreadableError if it is larger.
        """

    async def put(self, key: str, content: bytes, *, over: str | None) -> bool:
        """Write an object over the one with this tag, or where there is none.

        Return False if there is something else. A service may ignore that condition.
        """

    async def overwrite(self, key: str, content: bytes) -> None:
        """Write an object, whatever is there."""

    async def delete(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Delete objects; return what went wrong, by key."""

    async def notes(self, layout: Layout, now: datetime) -> tuple[StoreNote, ...]:
        """Return what the owner should change at the bucket; nothing if it may not be read."""


class _Deletion:
    """A blob to delete, and the result."""

    def __init__(self, entry: KnownEntry) -> None:
        self.entry = entry
        self.found = False
        self.error: StoreError | None = None
        self.is_done = False


class ObjectStore:
    """A cache in an object storage, as a run sees it."""

    def __init__(self, objects: Objects, layout: Layout, *, max_index_size: int) -> None:
        self.name = layout.name
        self.abilities = Abilities(
            noun="bucket",
            shows_exports=True,
            max_concurrent_deletions=_BATCH,
            least_grace=layout.least_grace,
        )
        refs = frozenset({NO_REF})
        self.access = Access(refs, refs)
        self._objects = objects
        self._layout = layout
        self._limit = max_index_size
        self._indexes: dict[str, Object] = {}
        """The indexes that the run has read or written, by key."""
        self._ignored: dict[str, Keep] = {}
        """What is stored among the indexes and is none, by key."""
        self._keys: dict[IndexId, str] = {}
        self._met: dict[str, str] = {}
        """The indexes that builds have written since, and the run has not merged in: tags, by key.
        """
        self._protected: set[Digest] = set()
        """The blobs that they reference."""
        self._has_blobs = False
        self._pending: list[_Deletion] = []
        self._deleting = anyio.Lock()
        self._clock: Callable[[], datetime] | None = None
        self._is_conditional: bool | None = None

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""
        return self._objects.requests

    @property
    def ignored(self) -> Sequence[Keep]:
        """What the last probe found among the indexes that BuildKit has not written."""
        return [keep for _, keep in sorted(self._ignored.items())]

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return what the settings allow; an object storage itself evicts nothing."""
        del now
        quota = context.settings.quota
        return StoreLimits(int(quota), is_assumed=False) if quota else StoreLimits()

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List the blobs; then the indexes, which builds write last."""
        del now
        spool = Spool()
        self._has_blobs = False
        self._ignored = {}
        async for page in self._objects.list(self._layout.blobs):
            entries = [self._entry(one) for one in page]
            self._has_blobs = self._has_blobs or any(one.parsed for one in entries)
            spool.add(entries)
            if reason := context.budget.reserve(0):
                raise UnfinishedError("the entries could not all be listed", reason)
        self._indexes = await self._list_indexes()
        seen = "\n".join(f"{one.tag} {key}" for key, one in sorted(self._indexes.items()))
        return Listing(spool, complete=True, state=hashlib.sha256(seen.encode()).digest())

    def _entry(self, found: Object) -> StoredEntry:
        digest = self._layout.digest_of(found.key)
        number = int(content_digest(found.key.encode())[7:23], 16) >> 1
        at = found.modified_at
        parsed = BlobKey(digest) if digest else None
        return StoredEntry(number, NO_REF, found.key, _OBJECT, found.size, at, at, parsed)

    async def _list_indexes(self) -> dict[str, Object]:
        found: dict[str, Object] = {}
        for prefix in self._layout.manifests:
            async for page in self._objects.list(prefix):
                found |= {one.key: one for one in page if self._may_be_index(one, prefix)}
        names = {self._layout.index_of(key): key for key in found}
        if len(names) < len(found):
            twice = min(found.keys() - names.values())
            raise StoreError(f"{printable(twice)} has the same name as another index: rename it")
        self._keys = names
        return found

    def _may_be_index(self, one: Object, prefix: str) -> bool:
        """Whether it is neither a blob nor an empty object, which consoles show as a folder."""
        is_folder = one.key == prefix and not one.size
        return not is_folder and self._layout.digest_of(one.key) is None

    def _key(self, index: IndexId) -> str:
        return self._keys.get(index, self._layout.manifests[0] + index.scope)

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Read the indexes that are new."""
        context.progress.stage("probe: read indexes", len(self._indexes))
        read: list[ReadGeneration] = []
        unread: list[UnreadGeneration] = []
        found: set[int] = set()
        gone = {one.generation_id for places in known.places.values() for one in places.values()}

        async def look(seen: Object) -> None:
            if reason := context.budget.reserve(1):
                raise UnfinishedError("the indexes could not all be read", reason)
            index = self._layout.index_of(seen.key)
            place = known.places.get(index, {}).get(NUMBER)
            if place and place.location == seen.tag and place.valid:
                found.add(place.generation_id)
            else:
                try:
                    if one := await self._read(seen.key):
                        read.append(one)
                except UnreadableError as error:
                    # Builds have no limit: they import what is too large for us.
                    unread.append(UnreadGeneration(index, 0, reasons.Problem(str(error))))
                    if place:
                        gone.discard(place.generation_id)
            context.progress.advance()

        await for_each(look, list(self._indexes.values()))
        self._refuse_no_index()
        return Versions(
            read=tuple(sorted(read, key=lambda one: one.index)),
            unread=tuple(unread),
            found=frozenset(found),
            gone=frozenset(gone - found),
            facts=StoreFacts(
                quiet_since=max((one.modified_at for one in self._indexes.values()), default=None),
                notes=await self._objects.notes(self._layout, now),
            ),
        )

    def _refuse_no_index(self) -> None:
        """Raise StoreError if blobs are stored, and no index that might reference them."""
        if self._has_blobs and not self._indexes:
            places = " or ".join(map(printable, self._layout.manifests))
            blobs = printable(self._layout.blobs)
            raise StoreError(
                f"blobs are stored under {blobs}, but no index could be read under {places}: check "
                "the prefixes, or delete the blobs if no build needs them"
            )

    async def _read(self, key: str) -> ReadGeneration | None:
        """Read an index; None if it is gone, or is no index at all."""
        found = await self._objects.get(key, limit=self._limit)
        if found is None:
            return None
        seen, content = found
        if not content.lstrip().startswith(_BEGINNINGS):
            # Writes are atomic, so this is not half of an index: somebody keeps it here.
            self._ignored[key] = Keep(printable(key), NO_REF, reasons.Unrecognized())
            self._indexes.pop(key, None)
            return None
        index = self._layout.index_of(key)
        return read_content(index, NUMBER, content, seen.modified_at, location=seen.tag)

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> Existing:
        """Look up which blobs exist."""
        found: set[Digest] = set()
        unasked: set[Digest] = set()

        async def look(blob: Digest) -> None:
            if context.budget.reserve(1):
                unasked.add(blob)
            elif await self._objects.look(self._layout.blobs + blob):
                found.add(blob)
            context.progress.advance()

        await for_each(look, sorted(blobs))
        return Existing(frozenset(found), frozenset(unasked))

    async def check(self, blob: Digest) -> ContentCheck:
        """Look a blob up: what exists can be read."""
        is_there = await self._objects.look(self._layout.blobs + blob) is not None
        return ContentCheck(is_there, is_readable=is_there)

    async def touch(self, key: str) -> bool:
        """Do nothing: nobody evicts by use."""
        del key
        return True

    async def new_versions(self) -> Sequence[NewVersion]:
        """List the indexes again; those with another content are new."""
        before = self._indexes
        now = await self._list_indexes()
        changed = [one for key, one in now.items() if _tag(before.get(key)) != one.tag]
        changed.sort(key=lambda one: one.modified_at)
        # The number of what this run has written is `NUMBER`, and these came later.
        return [
            NewVersion(self._layout.index_of(one.key), NUMBER + 1, self._entry(one))
            for one in changed
        ]

    async def read(self, version: NewVersion) -> ReadGeneration:
        """Read such an index."""
        if found := await self._read(version.entry.key):
            return found
        raise StoreError(f"{version.index} was deleted before it could be read")

    async def swap(self, changes: Sequence[Change], context: RunContext) -> Sequence[SwapResult]:
        """Write indexes, each over the one that was read."""
        del context
        return [await self._swap(change) for change in changes]

    async def _swap(self, change: Change) -> SwapResult:
        key = self._key(change.index)
        content = encode(with_sink(change.content, change.sink))
        if await self._put(key, content, over=_tag(self._indexes.get(key))):
            return await self._read_back(change, key, content)
        found = await self._objects.get(key, limit=self._limit)
        if found is None:
            self._indexes.pop(key, None)
            return Refused(reason=reasons.ManifestGone(f"{printable(key)} was deleted"))
        seen, other = found
        self._indexes[key] = seen
        return Conflict(
            read_content(change.index, NUMBER, other, seen.modified_at, location=seen.tag)
        )

    async def _put(self, key: str, content: bytes, *, over: str | None) -> bool:
        """Write an index if nobody else has; the check is ours if the service makes none."""
        if await self._has_conditions():
            return await self._objects.put(key, content, over=over)
        if _tag(await self._objects.look(key)) != over:
            return False
        await self._objects.overwrite(key, content)
        return True

    async def _read_back(self, change: Change, key: str, content: bytes) -> SwapResult:
        found = await self._objects.get(key, limit=max(len(content), self._limit))
        if found is None or found[1] != content:
            return Refused(reason=reasons.Exported())
        seen = self._indexes[key] = found[0]
        written = read_content(change.index, NUMBER, content, seen.modified_at, location=seen.tag)
        return Swapped(written, (len(content),))

    async def _has_conditions(self) -> bool:
        """Whether the service keeps to conditions of writes; some ignore them without a word."""
        if self._is_conditional is None:
            key = f"{self._layout.prefix}.maintainer-probe-{secrets.token_hex(8)}"
            try:
                self._is_conditional = (
                    await self._objects.put(key, b"1", over=None)
                    and not await self._objects.put(key, b"2", over=None)
                    and not await self._objects.put(key, b"3", over=_NO_TAG)
                    and await self._objects.put(
                        key, b"4", over=_tag(await self._objects.look(key)) or _NO_TAG
                    )
                )
            finally:
                await self._objects.delete([key])
            if not self._is_conditional:
                log.warning(
                    "%s ignores conditions of writes: a build that exports to a name in the moment "
                    "in which it is written loses its export",
                    self.name,
                )
        return self._is_conditional

    def activity(self, since: Since, context: RunContext) -> None:
        """Return nothing: `delete` looks itself."""
        del since
        self._clock = context.clock

    async def delete(self, entry: KnownEntry) -> bool:
        """Delete a blob together with those that wait, if no build needs them by now."""
        deletion = _Deletion(entry)
        self._pending.append(deletion)
        async with self._deleting:
            if not deletion.is_done:
                batch, self._pending = self._pending, []
                await self._delete(batch)
        if deletion.error:
            raise deletion.error
        return deletion.found

    async def _delete(self, batch: Sequence[_Deletion]) -> None:
        try:
            await self._look_again()
            await for_each(self._check, batch)
            keys = [one.entry.key for one in batch if one.found and not one.error]
            problems = await self._objects.delete(keys) if keys else {}
            for one in batch:
                if problem := problems.get(one.entry.key):
                    one.error = StoreError(problem)
        except StoreError as error:
            for one in batch:
                one.error = one.error or error
        finally:
            for one in batch:
                one.is_done = True

    async def _look_again(self) -> None:
        """Read the indexes that builds have written since the run read or wrote them."""
        for key, seen in (await self._list_indexes()).items():
            if seen.tag in (_tag(self._indexes.get(key)), self._met.get(key)):
                continue
            found = await self._read(key)
            if found is None:
                continue
            if found.config is None:
                raise ChangedError(f"a build has written {printable(key)}, which cannot be read")
            self._protected |= found.config.blobs
            self._met[key] = found.location or ""

    async def _check(self, deletion: _Deletion) -> None:
        """Look a blob up, directly before it is deleted."""
        entry = deletion.entry
        digest = self._layout.digest_of(entry.key)
        seen = await self._objects.look(entry.key)
        if seen is None:
            return
        deletion.found = True
        if (seen.modified_at, seen.size) != (entry.created_at, entry.size):
            deletion.error = ChangedError("a build has used it since the run began")
        elif digest in self._protected:
            deletion.error = ChangedError("a build has exported since, and needs it")
        elif self._age(seen) < self._layout.least_grace:
            deletion.error = ChangedError("a build may have found it before it exports")

    def _age(self, seen: Object) -> timedelta:
        """Return how old an object is, by our clock or that of the service: the earlier one."""
        clocks = (self._clock and self._clock(), seen.answered_at)
        return min((now for now in clocks if now), default=seen.modified_at) - seen.modified_at


_BEGINNINGS = (b"{", b"[")
"""The first characters of JSON; an index of BuildKit is some, even if it was spoiled."""
_NO_TAG = '"00000000000000000000000000000000"'


def _tag(one: Object | None) -> str | None:
    return one.tag if one else None
