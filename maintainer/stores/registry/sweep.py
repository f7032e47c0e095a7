"""Deletes manifests, and lets go of blobs.

Blobs are never deleted: a registry collects those that no manifest references, so a blob counts as
deleted when runs let go of it. A manifest is deleted only if it is that of a cache, if no tag and
no index leads to it, as looked up directly before, and if tags hold all that is needed of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from maintainer.cacheconfig import Digest
from maintainer.concurrency import for_each
from maintainer.errors import ChangedError, StoreError
from maintainer.model.entry import KnownEntry
from maintainer.stores.base import RunContext
from maintainer.stores.batches import Batches
from maintainer.stores.distribution.client import Client, DeletionRefusedError
from maintainer.stores.distribution.packages import Packages
from maintainer.stores.registry.look import CacheDocument, Tagged, look_at_tags
from maintainer.stores.registry.untagged import Untagged
from maintainer.stores.registry.write import Tags

BLOBS = "blobs/"
"""The beginning of the key of an entry that is a blob."""
BATCH = 100
"""How many deletions share one look at the tags."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the list of a run has shown."""

    tags: Tags
    untagged: Untagged = field(default_factory=Untagged)
    lost: frozenset[str] = frozenset()
    """The tags whose manifests are lost."""
    caches: Mapping[Digest, CacheDocument] = field(default_factory=dict)
    """All manifests of caches, with a tag or without."""

    @property
    def tagged(self) -> Tagged:
        """What the tags lead to; the sweep looks again."""
        return self.tags.tagged


class Deletions:
    """The deletions of a run."""

    def __init__(
        self,
        client: Client,
        packages: Packages | None,
        seen: Seen,
        is_selected: Callable[[str], bool],
    ) -> None:
        self.needed: frozenset[Digest] = frozenset()
        """The blobs that live results need."""
        self._client = client
        self._packages = packages
        self._seen = seen
        self._is_selected = is_selected
        self._batches = Batches(self._delete)

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete a manifest; or let go of a blob, which the registry deletes then."""
        return await self._batches.add((entry, context))

    async def _delete(
        self, waiting: Sequence[tuple[KnownEntry, RunContext]]
    ) -> list[bool | Exception]:
        try:
            await self._look_again()
        except StoreError as error:
            return [error] * len(waiting)

        return await for_each(self._try_to_delete, waiting)

    async def _try_to_delete(self, one: tuple[KnownEntry, RunContext]) -> bool | Exception:
        try:
            return await self._delete_one(*one)
        except StoreError as error:
            return error

    async def _look_again(self) -> None:
        """Look what tags lead to now, and read those that have changed."""
        seen = self._seen.tagged
        tags = await self._client.tags()
        if tags is None:
            raise ChangedError("the list of tags is gone")
        now = await look_at_tags(self._client, tags, self._is_selected, seen.tags)
        if now.unread:
            raise ChangedError(f"a build has written {min(now.unread)}, which cannot be read")
        seen.caches = {
            tag: now.caches.get(tag, cache)
            for tag, cache in (seen.caches | now.caches).items()
            if tag in now.tags and tag not in now.images
        }
        seen.tags, seen.absent = now.tags, now.absent
        seen.reached |= now.reached
        seen.named |= now.named

    async def _delete_one(self, entry: KnownEntry, context: RunContext) -> bool:
        digest = Digest(getattr(entry.parsed, "digest", ""))
        if entry.key.startswith(BLOBS):
            if digest in self._seen.tags.blobs:
                raise ChangedError("a build has exported since, and needs it")
            return True
        self._refuse_needed(digest)
        try:
            is_referred_to = await self._client.has_referrers(digest)
        except StoreError as error:
            raise ChangedError(f"nobody knows what refers to it: {error}") from None
        if is_referred_to:
            raise ChangedError("something refers to it, such as a signature")
        context.confirm()
        version = self._seen.untagged.versions.get(digest)

        async def recheck() -> None:
            await self._look_again()
            self._refuse_needed(digest)

        if version and self._packages:
            return await self._packages.delete(version, recheck)
        try:
            return await self._client.delete_manifest(digest, recheck)
        except DeletionRefusedError as error:
            raise ChangedError(str(error)) from None

    def _refuse_needed(self, digest: Digest) -> None:
        """Raise ChangedError if a manifest must stay."""
        seen = self._seen
        cache = seen.caches.get(digest)
        if cache is None or seen.tagged.leads_to(digest):
            raise ChangedError("a tag leads to it")
        if seen.tagged.absent:  # Any manifest may be theirs.
            tag = min(seen.tagged.absent)
            raise ChangedError(f"{tag} is listed, and its manifest is not shown")
        if hidden := seen.untagged.hidden:
            raise ChangedError(f"{hidden} is listed and not shown, and may lead to it")
        if cache.blobs & self.needed - seen.tags.blobs:
            raise ChangedError("only this manifest references blobs that results need")
