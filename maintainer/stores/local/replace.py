"""Replaces what tags point to: new blobs first, then `index.json`, for one moment under the lock.

The order is the safety argument: the new manifest is durable before a tag points to it; and a tag
is replaced only while it points to the manifest that was read, so no export is ever hidden.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import anyio.lowlevel

from maintainer.cacheconfig import Digest, Sink, content_digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.cacheconfig.oci import (
    IMPORT_LIMIT,
    MANIFEST_TYPE,
    CacheManifest,
    Descriptor,
    Encoded,
    read_manifest,
)
from maintainer.errors import StoreError
from maintainer.model import reason as reasons
from maintainer.model.reason import Reason
from maintainer.stores.base import Change, Conflict, Refused, Swapped, SwapResult
from maintainer.stores.local.disk import MissingError
from maintainer.stores.local.files import Files, FileState
from maintainer.stores.local.index import IndexFile, ReplacedError, Sleep
from maintainer.stores.local.lock import LockedError
from maintainer.stores.local.look import CacheTag, Tags, states_of
from maintainer.stores.local.tags import Replacement, read_tags, replace_tags
from maintainer.stores.oci import encode_tag, read_written

_ATTEMPTS = 10
"""How often `index.json` may be written concurrently before a tag is deferred to the next run."""


@dataclass
class _Attempt:
    """The new content of a tag."""

    change: Change
    tag: CacheTag | None
    """The current target of the tag; None if the tag does not exist."""
    refused: bool
    """Whether importers refuse the current content, as it was read."""
    missing: frozenset[Digest] = frozenset()
    """The blobs that the tag references and that were missing in the probe."""
    encoded: Encoded | None = None
    result: SwapResult | None = None

    @property
    def name(self) -> str:
        return str(self.change.index)

    @property
    def is_merge(self) -> bool:
        """Whether the tag is reserved for the merge of all others."""
        return self.change.sink is Sink.MERGE

    @property
    def contents(self) -> tuple[bytes, ...]:
        """The blobs that are written before the tag leads to them: first the config."""
        return (self.encoded.config, self.encoded.manifest) if self.encoded else ()

    def defer(self, reason: Reason) -> None:
        """Defer it to the next run."""
        self.result = Refused(reason=reason)

    def fail(self, problem: str, *, written: bool = False) -> None:
        """Finish without having written anything, or without knowing whether it lasts."""
        self.result = Refused(problem, unverified=self.name if written else None)


class Replacer:
    """Replaces some tags of one directory."""

    def __init__(
        self, files: Files, index: IndexFile, tags: Tags, missing: Collection[Digest], *, limit: int
    ) -> None:
        """Begin; `missing` are the blobs that the run did not find."""
        self._files = files
        self._index = index
        self._tags = {tag.index: tag for tag in tags.caches}
        self._refused = {one.index for one in tags.read if one.violation}
        self._reader = tags
        self._missing = missing
        self._limit = limit
        self._described: dict[str, Descriptor] = {}
        self._written: set[str] = set()

    async def swap(self, changes: Sequence[Change], sleep: Sleep) -> Sequence[SwapResult]:
        """Replace the tags that nobody else has replaced since the run began."""
        try:
            self._index.check_owner()  # Before blobs are written that no tag could reference.
        except StoreError as error:
            return [Refused(str(error))] * len(changes)
        attempts = [
            _Attempt(one, self._tags.get(one.index), one.index in self._refused) for one in changes
        ]
        self._describe(attempts)
        for attempt in attempts:
            self._prepare(attempt)
            await anyio.lowlevel.checkpoint()
        for _ in range(_ATTEMPTS):
            self._defer_losses(attempts)
            pending = {one.name: one for one in attempts if one.result is None}
            if not pending:
                break
            await self._try(pending, sleep)
        contended = Refused(reason=reasons.Contended(_ATTEMPTS))
        return [one.result or contended for one in attempts]

    def _describe(self, attempts: Sequence[_Attempt]) -> None:
        """Read the descriptors of all tags' blobs, if one of the tags is for the merge."""
        try:
            if any(attempt.is_merge for attempt in attempts):
                for tag in self._tags.values():
                    self._described |= self._form(tag).descriptors
        except MissingError as error:
            for attempt in attempts:
                attempt.defer(reasons.ManifestGone(str(error)))

    def _prepare(self, attempt: _Attempt) -> None:
        """Write the blobs that the tag will reference."""
        if attempt.result:
            return
        try:
            form = self._form(attempt.tag) if attempt.tag else None
            descriptors = form.descriptors if form else {}
            referenced = {Digest(blob) for blob in descriptors if is_digest(blob)}
            attempt.missing = frozenset(referenced.intersection(self._missing))
            described = {**self._described, **descriptors}
            change = attempt.change
            attempt.encoded = encode_tag(change, form, described)
            if attempt.encoded is None:
                attempt.defer(reasons.ImportLimit(IMPORT_LIMIT))
                return
            for content in attempt.contents:
                self._files.write_blob(content_digest(content), content)
        except MissingError as error:
            # Another run has replaced it: the tag points elsewhere now.
            attempt.defer(reasons.ManifestGone(str(error)))
        except StoreError as error:
            attempt.fail(str(error))

    def _form(self, tag: CacheTag) -> CacheManifest:
        """Read a manifest again, for the fields that an index does not have."""
        try:
            manifest = read_manifest(self._files.read_blob(tag.digest, limit=self._limit)[0])
        except MissingError:
            manifest = None
        if manifest is None:
            raise MissingError(f"the manifest {tag.digest} was deleted before it could be replaced")
        return manifest

    def _defer_losses(self, attempts: Sequence[_Attempt]) -> None:
        """Leave to the next run what would reference blobs that are gone since this one looked.

        To look took hours, if contents were read.
        """
        pending = [one for one in attempts if one.result is None]
        blobs = frozenset[Digest]().union(*(one.change.content.blobs for one in pending))
        try:
            stored = states_of(self._files, blobs).keys()
        except StoreError as error:
            for attempt in pending:
                attempt.fail(str(error))
            return
        for attempt in pending:
            if lost := attempt.change.content.blobs - stored:
                attempt.defer(reasons.BlobLost(min(lost)))

    async def _try(self, pending: Mapping[str, _Attempt], sleep: Sleep) -> None:
        """Replace all of these tags at once; or none, if builds have exported to some of them.

        An export may replace a tag by the same manifest, and restore its missing blobs.
        """
        is_written = False
        try:
            trace = self._index.trace()
            before, _ = await self._index.read(sleep)
            again = {name for name, one in pending.items() if self._is_back(one)}
            replacements = {name: self._replacement(one) for name, one in pending.items()}
            after, changed = replace_tags(before, replacements)
            for name in sorted(again.union(changed)):
                pending[name].result = self._adopt(pending[name], before)
            if again or changed:
                return
            self._files.check_places()
            self._restore(pending)
            is_written = await self._index.replace(before, after, sleep, trace=trace)
            if is_written:
                self._restore(pending)
                await self._read_back(pending, sleep)
        except LockedError as error:
            for attempt in pending.values():
                attempt.defer(reasons.Locked(str(error)))
        except StoreError as error:
            for attempt in pending.values():
                attempt.fail(str(error), written=is_written or isinstance(error, ReplacedError))

    def _is_back(self, attempt: _Attempt) -> bool:
        """Whether a build has restored the missing blobs of the manifest that is replaced."""
        if attempt.tag is None or attempt.is_merge:
            return False
        if attempt.refused:
            if self._replacement(attempt).new == attempt.tag.digest:
                return False  # What was written just now for this tag has made it whole.
            try:
                return self._reader.read_cache(attempt.tag).violation is None
            except MissingError:
                return False
        return bool(states_of(self._files, attempt.missing))

    def _restore(self, pending: Mapping[str, _Attempt]) -> None:
        """Write again what another run has deleted, because no tag led to it yet.

        Once a tag does, that run deletes nothing any more.
        """
        for attempt in pending.values():
            for content in attempt.contents:
                if self._files.stat(content_digest(content)) is None:
                    self._files.write_blob(content_digest(content), content)

    async def _read_back(self, pending: Mapping[str, _Attempt], sleep: Sleep) -> None:
        self._files.check_places()
        content, seen = await self._index.read(sleep)
        leads_to = {one.tag: one.digest for one in read_tags(content)}
        for name, attempt in pending.items():
            if leads_to.get(name) != self._replacement(attempt).new:
                attempt.defer(reasons.Exported())
            elif not self._is_stored(attempt):
                attempt.fail("its content is different", written=True)
            else:
                self._succeed(attempt, seen)

    def _is_stored(self, attempt: _Attempt) -> bool:
        return all(
            self._files.read_blob(content_digest(one), limit=len(one))[0] == one
            for one in attempt.contents
        )

    def _succeed(self, attempt: _Attempt, seen: FileState) -> None:
        change, encoded = attempt.change, attempt.encoded or Encoded(b"", b"")
        files = {str(content_digest(one)): len(one) for one in (encoded.manifest, encoded.config)}
        # What another tag has, too, is written once.
        entries = {key: size for key, size in files.items() if key not in self._written}
        self._written |= files.keys()
        written = read_written(change, seen.modified_at, content_digest(encoded.manifest))
        attempt.result = Swapped(written, entries)

    def _adopt(self, attempt: _Attempt, index: bytes) -> SwapResult:
        """Read what a build has exported to a tag since; this becomes its known content."""
        digest = next((one.digest for one in read_tags(index) if one.tag == attempt.name), None)
        tag = self._reader.read_tag(attempt.change.index, digest) if digest else None
        if tag is None:
            return Refused(reason=reasons.NotACache())
        self._tags[tag.index] = tag
        self._refused.discard(tag.index)
        return Conflict(self._reader.read_cache(tag))

    def _replacement(self, attempt: _Attempt) -> Replacement:
        manifest = attempt.encoded.manifest if attempt.encoded else b""
        new, size = content_digest(manifest), len(manifest)
        if attempt.tag:
            return Replacement(attempt.tag.digest, new, size)
        vacant = self._reader.vacant.get(attempt.change.index)
        return Replacement(vacant, new, size, media_type=MANIFEST_TYPE)
