"""Writes tags: the blobs of an index first, then its manifest, which appears in one step.

A tag is written only if it still points to the manifest that was read. No registry has conditions
for that: a build that exports between that look-up and the write is overwritten.
"""

from collections.abc import Mapping
from datetime import datetime

from maintainer.cacheconfig import (
    CacheConfig,
    Digest,
    IndexId,
    Sink,
    content_digest,
    matches,
)
from maintainer.cacheconfig.oci import IMPORT_LIMIT, Descriptor, Encoded
from maintainer.errors import ChangedError, UnreadableError
from maintainer.model import reason as reasons
from maintainer.model.index import ReadGeneration
from maintainer.sanitize import printable
from maintainer.stores.base import Change, Conflict, Refused, RunContext, Swapped, SwapResult
from maintainer.stores.distribution.client import BlobUnknownError, Client
from maintainer.stores.distribution.names import is_tag
from maintainer.stores.oci import decode_tag, encode_tag, read_tag, read_written
from maintainer.stores.registry.look import CacheDocument, Tagged, read_document
from maintainer.stores.registry.untagged import MANIFESTS

_ENCODINGS = 3
"""So many encodings of a config are tried, if those before are damaged in the registry."""


class Tags:
    """The tags of one repository that are caches, as this run has read or written them."""

    def __init__(self, client: Client, tagged: Tagged, *, limit: int) -> None:
        self.tagged = tagged
        self._client = client
        self._limit = limit
        self.missing: set[Digest] = set()
        """The blobs that the run did not find."""

    @property
    def blobs(self) -> frozenset[Digest]:
        """The blobs that they reference."""
        return frozenset[Digest]().union(*(one.blobs for one in self.tagged.caches.values()))

    async def read(self, index: IndexId, cache: CacheDocument, now: datetime) -> ReadGeneration:
        """Read the index of a tag, or return why an importer would refuse it."""
        config = cache.manifest.config
        decoded, content = None, b""
        try:
            found = await self._client.blob(config, limit=self._limit)
            if found is None or not matches(config, found):
                # One wrong answer is not enough to replace what a build has exported.
                found = await self._client.blob(config, limit=self._limit)
        except UnreadableError as error:
            violation = f"its config is too large: {error}"
        else:
            violation = f"its config {config} is missing"
            if found is not None:
                content = found
                decoded, violation = decode_tag(cache.manifest, content, len(cache.content))
        return read_tag(index, cache.digest, decoded, violation, now, undecoded=content)

    async def is_whole(self, config: Digest) -> bool:
        """Whether a config matches its digest. It is read, because it may be gone or damaged."""
        try:
            content = await self._client.blob(config, limit=self._limit)
        except UnreadableError:
            return False
        return content is not None and matches(config, content)

    async def write(self, change: Change, context: RunContext) -> SwapResult:
        """Write a tag, if it still points to what was read."""
        tag, now = str(change.index), context.clock()
        if not is_tag(tag):
            return Refused(f"{printable(tag)} cannot be a tag")
        cache = self.tagged.caches.get(tag)
        encoded = await self._store_config(change, cache)
        if not isinstance(encoded, Encoded):
            return encoded
        if cache and change.sink is not Sink.MERGE and await self._is_back(cache):
            return Conflict(await self.read(change.index, cache, now))
        head = await self._client.head(tag)
        if (head.digest if head else None) != self.tagged.tags.get(tag):
            return await self._adopt(change.index, now)
        context.confirm()
        return await self._replace(change, encoded, now)

    async def _store_config(self, change: Change, cache: CacheDocument | None) -> Encoded | Refused:
        """Store the config of a tag, and read it back; or return why it cannot be.

        A registry that holds other content under its digest, such as half of it, keeps that.
        """
        form, described = cache.manifest if cache else None, self._described(change)
        for padding in range(_ENCODINGS):
            encoded = encode_tag(change, form, described, padding=padding)
            if encoded is None:
                return Refused(reason=reasons.ImportLimit(IMPORT_LIMIT))
            await self._client.push_blob(encoded.config)
            if await self.is_whole(content_digest(encoded.config)):
                return encoded
        return Refused("its config was stored, and cannot be read")

    async def _replace(self, change: Change, encoded: Encoded, now: datetime) -> SwapResult:
        """Write a tag that was looked at, and read it back."""
        tag = str(change.index)
        try:
            await self._push(tag, encoded.manifest)
        except ChangedError:
            return await self._adopt(change.index, now)
        except BlobUnknownError:
            if lost := await self._find_lost(change.content):
                return Refused(reason=reasons.BlobLost(lost))
            raise  # The registry contradicts itself.
        written = await self._client.manifest(tag)
        cache = read_document(written) if written else None
        if cache is None or cache.content != encoded.manifest:
            return Refused(reason=reasons.Exported())
        self._note(tag, cache)
        entries = {f"{MANIFESTS}{cache.digest}": len(encoded.manifest)}
        return Swapped(read_written(change, now, cache.digest), entries)

    async def _push(self, tag: str, manifest: bytes) -> None:
        """Write a tag. Raises ChangedError if it must be tried again, and a build has exported."""
        expected = {self.tagged.tags.get(tag), content_digest(manifest)}

        async def recheck() -> None:
            head = await self._client.head(tag)
            if (head.digest if head else None) not in expected:
                raise ChangedError(f"a build has written {tag}")

        await self._client.push_manifest(tag, manifest, recheck)

    async def _find_lost(self, content: CacheConfig) -> Digest | None:
        """Return a blob that the registry had when the run looked, and has not any more."""
        for blob in sorted(content.blobs):
            if not await self._client.has_blob(blob):
                return blob
        return None

    def _described(self, change: Change) -> Mapping[str, Descriptor]:
        """Return what manifests say of blobs: for a merge, those of all tags."""
        described: dict[str, Descriptor] = {}
        for tag, cache in sorted(self.tagged.caches.items()):
            if change.sink is Sink.MERGE or tag == str(change.index):
                described |= cache.manifest.descriptors
        return described

    async def _is_back(self, cache: CacheDocument) -> bool:
        """Whether a build has restored missing blobs, by an export that has not moved the tag."""
        gone = sorted(cache.blobs & self.missing)
        back = {one for one in gone if await self._client.has_blob(one)}
        self.missing -= back
        return bool(back)

    async def _adopt(self, index: IndexId, now: datetime) -> SwapResult:
        """Read what a build has exported since; this becomes the known content of the tag."""
        tag = str(index)
        document = await self._client.manifest(tag)
        if document is None:
            self.tagged.tags.pop(tag, None)
            self.tagged.caches.pop(tag, None)
            return Refused(reason=reasons.ManifestGone(f"{tag} was deleted"))
        cache = read_document(document)
        if cache is None:
            return Refused(reason=reasons.NotACache())
        self._note(tag, cache)
        return Conflict(await self.read(index, cache, now))

    def _note(self, tag: str, cache: CacheDocument) -> None:
        self.tagged.tags[tag] = cache.digest
        self.tagged.caches[tag] = cache
