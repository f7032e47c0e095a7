"""A cache in an object storage: blobs under one prefix, and under others an index for each name.

What differs between services is behind `Objects`. The guards are here, in `indexes.py` and
`sweep.py`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from maintainer.cacheconfig import NO_REF, BlobKey, Digest, IndexId
from maintainer.concurrency import for_each
from maintainer.errors import ChangedError, StoreError, UnfinishedError, UnreadableError
from maintainer.model import reason as reasons
from maintainer.model.decision import Keep
from maintainer.model.entry import LONG_AGO, Access, KnownEntry, Listing, StoredEntry, StoreLimits
from maintainer.model.index import ReadGeneration, UnreadGeneration
from maintainer.model.memory import Memory
from maintainer.model.reason import Note
from maintainer.model.store import Abilities, StoreFacts
from maintainer.sanitize import printable
from maintainer.spool import Spool
from maintainer.stores.base import (
    Change,
    ContentCheck,
    Existing,
    NewVersion,
    RunContext,
    Since,
    SwapResult,
    Versions,
)
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.looking import configured_limits, look_up, number_of
from maintainer.stores.objects.claims import Claims
from maintainer.stores.objects.indexes import NUMBER, Indexes, is_at
from maintainer.stores.objects.layout import Layout
from maintainer.stores.objects.requests import Object, Objects
from maintainer.stores.objects.sweep import AHEAD, BATCH, Deletions

_OBJECT = "object"


class ObjectStore:
    """A cache in an object storage, as a run sees it."""

    def __init__(self, objects: Objects, layout: Layout, *, max_index_size: int) -> None:
        self.name = layout.name
        self.abilities = Abilities(
            noun=layout.noun,
            noun_of_name="name",
            shows_exports=layout.touches,
            max_concurrent_deletions=BATCH,
            max_refusals=BATCH,
            least_grace=layout.least_grace,
        )
        refs = frozenset({NO_REF})
        self.access = Access(refs, refs, is_certain=False)
        self._objects = objects
        self._layout = layout
        self._claims = Claims(objects, layout)
        self._indexes = Indexes(objects, layout, self._claims, max_size=max_index_size)
        self._deletions = Deletions(objects, layout, self._claims, self._indexes)
        self._newest_blob: datetime | None = None
        self._damaged: dict[str, Keep] = {}

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""
        return self._objects.requests

    @property
    def ignored(self) -> Sequence[Keep]:
        """What the last probe found among the indexes that BuildKit has not written; and blobs that
        have lost their content.
        """
        return [keep for _, keep in sorted((self._indexes.ignored | self._damaged).items())]

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return what the settings allow; an object storage itself evicts nothing."""
        del now
        return configured_limits(context)

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List the blobs; then the indexes, which builds write last."""
        del now
        spool = Spool()
        newest: datetime | None = None
        empty: set[Digest] = set()
        self._indexes.ignored, self._damaged = {}, {}
        async for page in self._objects.list(self._layout.blobs):
            entries = [self._entry(one) for one in page if one.key != self._claims.key]
            written = (one.created_at for one in entries if one.parsed)
            newest = max(filter(None, (newest, *written)), default=None)
            empty.update(self._without_content(page))
            spool.add(entries)
            if reason := context.budget.reserve(0):
                raise UnfinishedError("the entries could not all be listed", reason)
        self._newest_blob = newest
        known = self._indexes.known = await self._indexes.list()
        spool.add([self._entry(one) for one in self._names_with_rules(known, context)])
        # The tag is the same if a build exports the same again, but not the time.
        seen = "\n".join(f"{x.tag} {x.modified_at} {key}" for key, x in sorted(known.items()))
        state = hashlib.sha256(seen.encode()).digest()
        return Listing(spool, complete=True, state=state, empty=frozenset(empty))

    def _without_content(self, page: Sequence[Object]) -> Iterator[Digest]:
        """Return the blobs that are listed without a byte: builds that need them fail."""
        for one in page:
            digest = None if one.size else self._layout.digest_of(one.key)
            if digest and not one.is_blob(digest):
                yield digest

    def _names_with_rules(
        self, indexes: Mapping[str, Object], context: RunContext
    ) -> Iterator[Object]:
        """Return the indexes that a rule may let expire: they are entries like those of tools."""
        settings = context.settings
        prefixes = tuple(
            rule.prefix
            for rule in settings.room.rules
            if rule.prefix.startswith(self._layout.manifests)
        )
        for key, one in sorted(indexes.items()):
            is_merge = self._layout.index_of(key).scope == settings.merged_tag
            is_folder = not one.size  # As consoles and some accounts of Azure show one.
            if is_merge or is_folder or not self._layout.maintains(key):
                continue
            if key.startswith(prefixes):
                yield one

    def _entry(self, found: Object) -> StoredEntry:
        digest = self._layout.digest_of(found.key) if found.is_readable else None
        at = found.modified_at
        parsed = BlobKey(digest) if digest else None
        number = number_of(found.key)
        return StoredEntry(number, NO_REF, found.key, _OBJECT, found.size, at, at, parsed)

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Read the indexes that are new."""
        indexes = self._indexes.known
        listed = frozenset(indexes)
        context.progress.stage("probe: read indexes", len(indexes))
        read: list[ReadGeneration] = []
        unread: list[UnreadGeneration] = []
        found: set[int] = set()
        pinned: dict[Digest, str] = {}
        gone = {one.generation_id for places in known.places.values() for one in places.values()}

        async def look(seen: Object) -> None:
            if reason := context.budget.reserve(1):
                raise UnfinishedError("the indexes could not all be read", reason)
            index = self._layout.index_of(seen.key)
            place = known.places.get(index, {}).get(NUMBER)
            if not self._layout.maintains(seen.key):
                if problem := await self._pin(seen, index, pinned):
                    unread.append(UnreadGeneration(index, 0, reasons.Problem(problem)))
            elif place and place.valid and is_at(place.location, seen):
                found.add(place.generation_id)
            else:
                try:
                    if one := await self._indexes.read_listed(seen, was_index=bool(place)):
                        read.append(one)
                except UnreadableError as error:
                    # Builds have no limit: they import what is too large for us.
                    unread.append(UnreadGeneration(index, 0, reasons.Problem(str(error))))
                    if place:
                        gone.discard(place.generation_id)
            context.progress.advance()

        await for_each(look, list(indexes.values()))
        self._refuse_no_index(known, context)
        await self._refuse_unlisted(known, listed)
        nothing = self._nothing_found(context.settings.merged_tag)
        # Where nothing shows a use, a blob may have been in use until a run first saw it.
        written_at = max((one.modified_at for one in indexes.values()), default=None)
        return Versions(
            read=tuple(sorted(read, key=lambda one: one.index)),
            unread=tuple(unread),
            found=frozenset(found),
            gone=frozenset(gone - found),
            facts=StoreFacts(
                index_prefix=self._layout.manifests[0],
                quiet_since=written_at if self._layout.touches else now,
                unseen_for=self._layout.least_grace if self._layout.touches else timedelta(0),
                leaves_out=not all(map(self._layout.maintains, self._indexes.known)),
                pinned={blob: reasons.NeededByOtherName(name) for blob, name in pinned.items()},
                notes=(*nothing, *await self._objects.notes(self._layout, now)),
            ),
        )

    async def _refuse_unlisted(self, known: Memory, listed: frozenset[str]) -> None:
        """Raise StoreError if an index is not listed and exists: others may be missing, too."""
        for index in sorted(index for index, places in known.places.items() if places):
            keys = self._layout.keys_of(index)
            for key in () if listed.intersection(keys) else keys:
                if await self._objects.head(key):
                    raise StoreError(f"the list does not show {printable(key)}, which exists")

    async def _pin(self, seen: Object, index: IndexId, pinned: dict[Digest, str]) -> str | None:
        """Keep the blobs of an index that stays as it is; return why they are unknown, if so."""
        try:
            found = await self._indexes.read_listed(seen)
        except UnreadableError as error:
            return str(error)
        if found is None:
            return None
        if found.config is None:
            return f"{printable(seen.key)} is not an index that builds can read"
        for blob in found.config.blobs:
            pinned[blob] = min(pinned.get(blob, index.scope), index.scope)
        return None

    def _refuse_no_index(self, known: Memory, context: RunContext) -> None:
        """Raise StoreError if blobs are stored, and no index that might reference them.

        Unless rules let all indexes expire: then the blobs are what these have left.
        """
        if self._newest_blob is None or self._indexes.known:
            return
        if self._newest_blob < self._emptied_at(known, context) - AHEAD:
            return
        places = " or ".join(map(printable, self._layout.manifests))
        blobs = printable(self._layout.blobs)
        raise StoreError(
            f"blobs are stored under {blobs}, but no index could be read under {places}: check "
            "the prefixes, or delete the blobs if no build needs them"
        )

    def _emptied_at(self, known: Memory, context: RunContext) -> datetime:
        """Return when runs deleted the last index; long ago if an index is gone in another way."""
        swept: dict[str, datetime] = {}
        for prefix in self._layout.manifests:
            swept |= context.swept(prefix)
        stored = (index for index, places in known.places.items() if places)
        if not all(swept.keys() & self._layout.keys_of(index) for index in stored):
            return LONG_AGO
        return max(swept.values(), default=LONG_AGO)

    def _nothing_found(self, merged_tag: str) -> tuple[Note, ...]:
        """Return that there is no index to maintain; the merge alone counts only for all names."""
        names = tuple(printable(one) for one in self._layout.names if one != merged_tag)
        found = {self._layout.index_of(key).scope for key in self._maintained(self._indexes.known)}
        if found - {merged_tag} if names else found:
            return ()
        places = " or ".join(map(printable, self._layout.manifests))
        return (reasons.NothingFound(places, names),)

    def _maintained(self, keys: Iterable[str]) -> Iterator[str]:
        return (key for key in keys if self._layout.maintains(key))

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> Existing:
        """Look up which blobs exist."""

        async def is_readable(blob: Digest) -> bool:
            return (await self.check(blob)).is_readable

        return await look_up(blobs, context, is_readable)

    async def check(self, blob: Digest) -> ContentCheck:
        """Look a blob up."""
        seen = await self._objects.head(self._layout.blobs + blob)
        if seen and seen.is_readable and not seen.is_blob(blob):
            self._damaged[seen.key] = Keep(blob, NO_REF, reasons.Damaged())
        return ContentCheck(seen is not None, is_readable=seen is not None and seen.is_blob(blob))

    async def touch(self, key: str) -> bool:
        """Do nothing: nobody evicts by use."""
        del key
        return True

    async def new_versions(self) -> Sequence[NewVersion]:
        """List the indexes again; those with another content are new."""
        listed = await self._indexes.list_changed()
        ours = (one for one in listed if self._layout.maintains(one.key))
        changed = sorted(ours, key=lambda one: one.modified_at)
        # The number of what this run has written is `NUMBER`, and these came later.
        return [
            NewVersion(self._layout.index_of(one.key), NUMBER + 1, self._entry(one))
            for one in changed
        ]

    async def read(self, version: NewVersion) -> ReadGeneration:
        """Read such an index."""
        if found := await self._indexes.read(version.entry.key):
            return found
        raise StoreError(f"{version.index} was deleted before it could be read")

    async def swap(self, changes: Sequence[Change], context: RunContext) -> Sequence[SwapResult]:
        """Write indexes, each over the one that was read."""
        return [await self._indexes.swap(change, context) for change in changes]

    def activity(self, since: Since, context: RunContext) -> None:
        """Return nothing: `delete` looks itself."""
        del since, context

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete a blob, if no build needs it by now."""
        if entry.store_id != number_of(entry.key):
            raise ChangedError("its name has a character that cannot be stored")
        return await self._deletions.delete(entry, context)
