"""A cache in a repository of a registry: a manifest for each tag, and the blobs that these need.

The guards of writes are in `write.py`, those of deletions in `sweep.py`.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from maintainer.cacheconfig import NO_REF, BlobKey, Digest, IndexId, Scope
from maintainer.cacheconfig.oci import IMPORT_LIMIT
from maintainer.concurrency import for_each
from maintainer.errors import StoreError, UnfinishedError, UnknownCacheError
from maintainer.model import reason as reasons
from maintainer.model.decision import Keep
from maintainer.model.entry import Access, KnownEntry, Listing, StoredEntry, StoreLimits
from maintainer.model.index import BrokenTag, ReadGeneration, UnreadGeneration
from maintainer.model.memory import Memory
from maintainer.model.reason import Note, Reason
from maintainer.model.store import Abilities, StoreFacts
from maintainer.sanitize import printable
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
from maintainer.stores.distribution.client import Client
from maintainer.stores.distribution.packages import Packages
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.looking import configured_limits, look_up, number_of
from maintainer.stores.oci import NUMBER, read_tag
from maintainer.stores.registry.address import Address
from maintainer.stores.registry.inline import has_inline_cache
from maintainer.stores.registry.look import Tagged, look_at_tags
from maintainer.stores.registry.sweep import BATCH, BLOBS, Deletions, Seen
from maintainer.stores.registry.untagged import MANIFESTS, find_untagged
from maintainer.stores.registry.write import Tags

_LOST = "its manifest is missing"


class RegistryStore:
    """A repository, as a run sees it."""

    def __init__(
        self,
        client: Client,
        address: Address,
        packages: Packages | None,
        why_none: str,
        *,
        max_index_size: int,
    ) -> None:
        """Begin; `why_none` is why there are no `packages`."""
        self.name = address.name
        refs = frozenset({NO_REF})
        self.access = Access(refs, refs, is_certain=False)
        self.ignored: Sequence[Keep] = ()
        self._client = client
        self._address = address
        self._packages = packages
        self._why_none = why_none
        self._limit = max_index_size
        self._seen = Seen(Tags(client, Tagged(), limit=max_index_size))
        self._deletions = Deletions(client, packages, self._seen, self._is_selected)
        self._merged_tag = ""

    @property
    def abilities(self) -> Abilities:
        """What the registry allows."""
        return Abilities(
            noun="registry",
            deletes=self._seen.untagged.refusal is None,
            shows_exports=True,
            excludes_exports=True,
            looks_cheaply=True,
            max_concurrent_deletions=BATCH,
        )

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""
        return self._client.requests

    @property
    def _tagged(self) -> Tagged:
        return self._seen.tagged

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return what the settings allow; a registry evicts nothing that has a tag."""
        del now
        return configured_limits(context)

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List the manifests of caches, and the blobs that they reference."""

        def go_on() -> None:
            if reason := context.budget.reserve(0):
                raise UnfinishedError("the entries could not all be listed", reason)

        tags = await self._client.tags(go_on)
        if tags is None:
            raise UnknownCacheError(
                f"{self.name} does not exist, or these credentials may not read it"
            )
        self._merged_tag = context.settings.merged_tag
        tagged = await look_at_tags(self._client, tags, self._is_selected, go_on=go_on)
        lost = await self._find_lost(tagged)
        remembered = context.remembered()
        untagged = await find_untagged(
            self._client, self._packages, self._why_none, tagged, remembered
        )
        caches = untagged.caches | {one.digest: one for one in tagged.caches.values()}
        written = Tags(self._client, tagged, limit=self._limit)
        self._seen = Seen(written, untagged, lost, caches)
        self._deletions = Deletions(self._client, self._packages, self._seen, self._is_selected)
        go_on()
        return Listing(tuple(self._entries(now, remembered)), complete=True, state=self._state())

    async def _find_lost(self, tagged: Tagged) -> frozenset[str]:
        """Return the tags that stay listed although their manifests are lost.

        A tag that was deleted since the first list is not in the second one.
        """
        if not tagged.absent:
            return frozenset()
        return frozenset(tagged.absent.intersection(await self._client.tags() or ()))

    def _is_selected(self, tag: str) -> bool:
        return self._address.selects(tag) or tag == self._merged_tag

    def _entries(self, now: datetime, remembered: Mapping[str, datetime]) -> Iterator[StoredEntry]:
        sizes: dict[Digest, int] = {}
        for digest, cache in sorted(self._seen.caches.items()):
            version = self._seen.untagged.versions.get(digest)
            key = f"{MANIFESTS}{digest}"
            at = version.changed_at if version else remembered.get(key, now)
            yield _entry(digest, key, len(cache.content), at)
            for blob, size in cache.manifest.sizes():
                sizes[blob] = max(size, sizes.get(blob, 0))
        for blob, size in sorted(sizes.items()):
            key = f"{BLOBS}{blob}"
            yield _entry(blob, key, size, remembered.get(key, now))

    def _state(self) -> bytes | None:
        """Return what the tags point to; None if that is not known of all."""
        if self._tagged.unread:
            return None
        tags = "\n".join(f"{tag} {digest}" for tag, digest in sorted(self._tagged.tags.items()))
        return hashlib.sha256(tags.encode()).digest()

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Read the indexes of the tags that are new."""
        caches = self._tagged.caches
        context.progress.stage("probe: read tags", len(caches))
        read: list[ReadGeneration] = []
        found: set[int] = set()
        unread = {index_of(tag): problem for tag, problem in self._tagged.unread.items()}

        async def look(tag: str) -> None:
            if reason := context.budget.reserve(1):
                raise UnfinishedError("the tags could not all be read", reason)
            index = index_of(tag)
            place = known.places.get(index, {}).get(NUMBER)
            is_known = place and place.location == caches[tag].digest and place.valid
            if place and is_known and await self._seen.tags.is_whole(caches[tag].manifest.config):
                found.add(place.generation_id)
            else:
                read.append(await self._seen.tags.read(index, caches[tag], now))
            context.progress.advance()

        await for_each(look, sorted(caches))
        await self._check_gone(known)
        for index in map(index_of, filter(self._is_selected, self._seen.lost)):
            for place in known.places.get(index, {}).values():
                if str(index) == self._merged_tag:
                    # It can be made again, and no build exports to it.
                    read.append(read_tag(index, Digest(place.location or ""), None, _LOST, now))
                else:
                    # Nobody has deleted it: the merge keeps what it held.
                    found.add(place.generation_id)
        stored = {
            place.generation_id
            for index, places in known.places.items()
            if index not in unread
            for place in places.values()
        }
        return Versions(
            read=tuple(sorted(read, key=lambda one: one.index)),
            unread=tuple(
                UnreadGeneration(index, 0, reasons.Problem(problem))
                for index, problem in sorted(unread.items())
            ),
            found=frozenset(found),
            gone=frozenset(stored - found),
            facts=await self._facts(),
        )

    async def _check_gone(self, known: Memory) -> None:
        """Raise StoreError if a tag is not listed and exists: then others may be missing, too."""
        seen = self._tagged.tags.keys() | self._tagged.unread.keys()
        for index, places in sorted(known.places.items()):
            if places and str(index) not in seen and await self._client.head(str(index)):
                raise StoreError(f"the list of tags does not show {index}, which exists")

    async def _facts(self) -> StoreFacts:
        holders: dict[Digest, set[IndexId]] = {}
        for tag, cache in self._tagged.caches.items():
            holders.setdefault(cache.digest, set()).add(index_of(tag))
        versions = self._seen.untagged.versions
        changed = [versions[one].changed_at for one in holders if one in versions]
        tags = self._tagged.tags.keys()
        others = tags - self._tagged.caches.keys()
        return StoreFacts(
            quiet_since=max(changed, default=None),
            manifest_blobs={digest: frozenset(names) for digest, names in holders.items()},
            pinned=self._pinned(),
            others=frozenset(map(index_of, others)),
            leaves_out=not all(map(self._is_selected, tags)),
            broken=tuple(
                BrokenTag(printable(tag), f"{_LOST}, so no manifest is deleted while it is listed")
                for tag in sorted(self._seen.lost - {self._merged_tag})
            ),
            index_limit=IMPORT_LIMIT,
            notes=tuple([note async for note in self._notes()]),
        )

    def _pinned(self) -> dict[Digest, Reason]:
        """Return what stays because the registry deletes no manifests."""
        untagged = self._seen.untagged
        if untagged.refusal is None:
            return {}
        reason = reasons.Undeletable(untagged.refusal)
        caches = untagged.caches.values()
        blobs = {blob for cache in caches for blob, _ in cache.manifest.sizes()}
        return dict.fromkeys([*untagged.caches, *sorted(blobs)], reason)

    def _has_caches(self) -> bool:
        """Whether there is a cache to maintain; the merge alone counts only for all tags."""
        tags = self._tagged.caches.keys() | self._tagged.unread.keys()
        return bool(tags - {self._merged_tag} if self._address.tags else tags or self._seen.caches)

    async def _notes(self) -> AsyncIterator[Note]:
        if not self._has_caches():
            yield reasons.NothingFound(self._address.repository, self._address.tags)
        inline = await for_each(
            lambda document: has_inline_cache(self._client, document),
            self._tagged.images.values(),
        )
        if any(inline):
            yield reasons.InlineCaches(sum(inline))
        untagged = self._seen.untagged
        if untagged.refusal is not None:
            yield reasons.DeletionRefused(len(untagged.caches), untagged.refusal)
        if untagged.problem is not None:
            yield reasons.UntaggedUnknown(untagged.problem)

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> Existing:
        """Look up which blobs exist."""
        looked = await look_up(blobs, context, self._client.has_blob)
        missing = blobs - looked.found - looked.unasked
        self._seen.tags.missing |= missing
        self._seen.tags.missing -= looked.found
        # The list has the blobs that manifests reference, stored or not.
        return replace(looked, unstored=frozenset(number_of(f"{BLOBS}{one}") for one in missing))

    async def check(self, blob: Digest) -> ContentCheck:
        """Look a blob up: what exists can be read."""
        is_there = await self._client.has_blob(blob)
        return ContentCheck(is_there, is_readable=is_there)

    async def touch(self, key: str) -> bool:
        """Do nothing: nobody evicts by use."""
        del key
        return True

    async def new_versions(self) -> Sequence[NewVersion]:
        """Return none: no blob is deleted."""
        return ()

    async def read(self, version: NewVersion) -> ReadGeneration:
        """Refuse: there are no new versions."""
        raise StoreError(f"{version.index} is not new")

    async def swap(self, changes: Sequence[Change], context: RunContext) -> Sequence[SwapResult]:
        """Write tags, each if it still points to what was read."""
        return [await self._seen.tags.write(change, context) for change in changes]

    def activity(self, since: Since, context: RunContext) -> None:
        """Return nothing: `delete` looks itself."""
        del context
        indexes = since.marks.indexes
        self._deletions.needed = frozenset[Digest]().union(*(one.needs.blobs for one in indexes))

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete a manifest; or let go of a blob, which the registry deletes then."""
        return await self._deletions.delete(entry, context)


def index_of(tag: str) -> IndexId:
    """Return the index of a tag."""
    return IndexId(NO_REF, Scope(tag))


def _entry(digest: Digest, key: str, size: int, at: datetime) -> StoredEntry:
    # Of the key: a manifest may be stored as a blob, too.
    kind = key.partition("/")[0]
    return StoredEntry(number_of(key), NO_REF, key, kind, size, at, at, BlobKey(digest))
