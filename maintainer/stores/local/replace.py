"""Replaces what tags lead to: new blobs first, then `index.json`, in one moment under the lock.

The order is the safety argument: what a tag will lead to is durable before the tag leads there; and
a tag is replaced only while it leads to what was read, so that no export is ever hidden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio.lowlevel

from maintainer.budget import Budget
from maintainer.cacheconfig import (
    CacheConfig,
    Digest,
    IndexId,
    Sink,
    content_digest,
    encode,
    loses_links,
    merge,
    prune,
    with_sink,
)
from maintainer.cacheconfig.keys import is_digest
from maintainer.cacheconfig.oci import (
    IMPORT_LIMIT,
    MANIFEST_TYPE,
    CacheManifest,
    Descriptor,
    Encoded,
    encode_oci,
    fits_importers,
    read_manifest,
)
from maintainer.cacheconfig.shrink import shrink
from maintainer.errors import StoreError
from maintainer.model import reason as reasons
from maintainer.model.decision import Rewritten, WriteIndex
from maintainer.model.index import ReadGeneration
from maintainer.model.reason import Reason
from maintainer.probe import read_content
from maintainer.stores.local.files import Files, MissingError, Seen
from maintainer.stores.local.index import IndexFile
from maintainer.stores.local.lock import LockedError
from maintainer.stores.local.look import NUMBER, CacheTag, Tags, live_of
from maintainer.stores.local.tags import Replacement, read_tags, replace_tags

_ATTEMPTS = 10
"""So many exports to one tag are met before it is left for the next run."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a run found out before it planned."""

    live: frozenset[Digest]
    """The blobs that exist."""
    missing: frozenset[Digest]
    """The blobs that it looked for in vain."""
    damaged: frozenset[Digest]
    """The blobs that exist, but whose content is another."""
    refused: frozenset[IndexId]
    """The tags whose index importers refuse."""


@dataclass
class _Attempt:
    """What a tag is to lead to, as it changes while builds export."""

    write: WriteIndex
    tag: CacheTag | None
    """What the tag leads to; None if it is not there yet."""
    content: CacheConfig
    refused: bool
    """Whether importers refuse what the tag leads to, as it was read."""
    met: list[ReadGeneration] = field(default_factory=list)
    missing: frozenset[Digest] = frozenset()
    """The blobs that the tag leads to, and that were not there when the run looked."""
    encoded: Encoded | None = None
    outcome: Rewritten | None = None

    @property
    def name(self) -> str:
        return str(self.write.index)

    @property
    def is_merge(self) -> bool:
        """Whether it is the tag that holds the merge of all others, and no build's export."""
        return self.write.sink is Sink.MERGE

    def end(self, *, left: Reason | None = None, error: str | None = None) -> None:
        """Come to an end without having written anything."""
        self.outcome = Rewritten(self.write.index, None, tuple(self.met), error, left)


class Replacer:
    """Replaces some tags of one directory."""

    def __init__(
        self,
        files: Files,
        index: IndexFile,
        tags: Tags,
        found: Found,
        *,
        limit: int,
    ) -> None:
        self._files = files
        self._index = index
        self._tags = {tag.index: tag for tag in tags.caches}
        self._reader = tags
        self._live = set(found.live)
        self._missing = set(found.missing)
        self._damaged = found.damaged
        self._refused = found.refused
        self._limit = limit
        self._described: dict[str, Descriptor] = {}
        self._written: set[Digest] = set()

    async def replace(self, writes: Sequence[WriteIndex], budget: Budget) -> list[Rewritten]:
        """Write indexes; the results say what went wrong."""
        attempts = [
            _Attempt(
                write,
                self._tags.get(write.index),
                write.content,
                refused=write.index in self._refused,
            )
            for write in writes
        ]
        self._describe(attempts)
        for attempt in attempts:
            if reason := budget.take(0):
                attempt.end(left=reason)
            self._prepare(attempt)
            await anyio.lowlevel.checkpoint()
        for _ in range(_ATTEMPTS):
            pending = {one.name: one for one in attempts if one.outcome is None}
            if not pending:
                break
            await self._try(pending)
        for attempt in attempts:
            if attempt.outcome is None:
                attempt.end(left=reasons.Contended(_ATTEMPTS))
        return [one.outcome for one in attempts if one.outcome]

    def _describe(self, attempts: Sequence[_Attempt]) -> None:
        """Read what all tags say of their blobs, if one of them is to hold the merge."""
        try:
            if any(attempt.is_merge for attempt in attempts):
                for tag in self._tags.values():
                    self._described |= self._form(tag).descriptors
        except MissingError as error:
            for attempt in attempts:
                attempt.end(left=reasons.ManifestGone(str(error)))

    def _prepare(self, attempt: _Attempt) -> None:
        """Write the blobs that the tag will lead to."""
        if attempt.outcome:
            return
        try:
            form = self._form(attempt.tag) if attempt.tag else None
            descriptors = form.descriptors if form else {}
            named = {Digest(blob) for blob in descriptors if is_digest(blob)}
            attempt.missing = frozenset(named & self._missing)
            attempt.encoded = self._encode(attempt, form, {**self._described, **descriptors})
            if attempt.encoded is None:
                attempt.end(left=reasons.ImportLimit(IMPORT_LIMIT))
                return
            for content in (attempt.encoded.config, attempt.encoded.manifest):
                self._files.write_blob(content_digest(content), content)
        except MissingError as error:
            # Another run has replaced it: the tag leads elsewhere by now.
            attempt.end(left=reasons.ManifestGone(str(error)))
        except StoreError as error:
            attempt.end(error=str(error))

    def _encode(
        self, attempt: _Attempt, form: CacheManifest | None, described: Mapping[str, Descriptor]
    ) -> Encoded | None:
        """Return what importers have room for, if need be without what they do not need."""
        for known in (described, {}):
            encoded = encode_oci(
                attempt.content, form=form, described=known, sink=attempt.write.sink
            )
            if max(len(encoded.config), len(encoded.manifest)) <= IMPORT_LIMIT:
                return encoded
        return None

    def _form(self, tag: CacheTag) -> CacheManifest:
        """Read a manifest once more, for what an index does not know of it."""
        try:
            manifest = read_manifest(self._files.read_blob(tag.digest, limit=self._limit)[0])
        except MissingError:
            manifest = None
        if manifest is None:
            raise MissingError(f"the manifest {tag.digest} went while it was about to be replaced")
        return manifest

    async def _try(self, pending: Mapping[str, _Attempt]) -> None:
        """Replace all of these tags at once, but for those that builds have exported to.

        An export may give a tag what it leads to already, and blobs that were missing with it.
        """
        try:
            trace = self._index.trace()
            before, _ = await self._index.read()
            again = {name for name, one in pending.items() if self._is_back(one)}
            replacements = {name: self._replacement(one) for name, one in pending.items()}
            after, changed = replace_tags(before, replacements)
            for name in sorted(again.union(changed)):
                self._meet(pending[name], before)
            if again or changed:
                return
            self._files.check_places()
            if await self._index.replace(before, after, trace=trace):
                await self._read_back(pending)
        except LockedError as error:
            for attempt in pending.values():
                attempt.end(left=reasons.Locked(str(error)))
        except StoreError as error:
            for attempt in pending.values():
                attempt.end(error=str(error))

    def _is_back(self, attempt: _Attempt) -> bool:
        """Whether a build has stored what importers lacked of the manifest that is replaced."""
        if attempt.tag is None or attempt.is_merge:
            return False
        if attempt.refused:
            try:
                return self._reader.read_cache(attempt.tag).violation is None
            except MissingError:
                return False
        return bool(live_of(self._files, attempt.missing))

    async def _read_back(self, pending: Mapping[str, _Attempt]) -> None:
        self._files.check_places()
        content, seen = await self._index.read()
        leads_to = {one.tag: one.digest for one in read_tags(content)}
        for name, attempt in pending.items():
            if leads_to.get(name) != self._replacement(attempt).new:
                attempt.end(left=reasons.Exported())
            elif not self._is_stored(attempt.encoded):
                attempt.end(error=f"{name} was written, but reading it back gives something else")
            else:
                self._succeed(attempt, seen)

    def _is_stored(self, encoded: Encoded | None) -> bool:
        contents = (encoded.config, encoded.manifest) if encoded else ()
        return all(
            self._files.read_blob(content_digest(one), limit=len(one))[0] == one for one in contents
        )

    def _succeed(self, attempt: _Attempt, seen: Seen) -> None:
        encoded = attempt.encoded or Encoded(b"", b"")
        files = {content_digest(one): len(one) for one in (encoded.manifest, encoded.config)}
        # Tags of one meaning have one config.
        sizes = tuple(size for digest, size in files.items() if digest not in self._written)
        self._written |= files.keys()
        attempt.outcome = Rewritten(
            attempt.write.index,
            read_content(
                attempt.write.index,
                NUMBER,
                encode(with_sink(attempt.content, attempt.write.sink)),
                seen.modified_at,
                location=content_digest(encoded.manifest),
            ),
            tuple(attempt.met),
            files=sizes,
        )

    def _meet(self, attempt: _Attempt, index: bytes) -> None:
        """Take in what a build has exported to a tag meanwhile."""
        digest = next((one.digest for one in read_tags(index) if one.tag == attempt.name), None)
        tag = self._reader.read_tag(attempt.write.index, digest) if digest else None
        if tag is None:
            attempt.end(left=reasons.NotACache())
            return
        met = self._reader.read_cache(tag)
        if attempt.is_merge:
            self._meet_merge(attempt, met)
            return
        attempt.met.append(met)
        attempt.tag = tag
        attempt.refused = False
        if met.config is None:
            attempt.end(left=reasons.Exported())
            return
        self._look_for(met.config.blobs)
        exported = merge([met.config])
        attempt.content = prune(exported, self._live)
        fits = fits_importers(attempt.content)
        says_it_all = attempt.content == exported and met.violation is None
        # Importers read the export as it is: near the limit, a sink would cost some of its results.
        if says_it_all and not (fits and loses_links(exported, met.sink)):
            attempt.end()
            return
        if not fits:
            attempt.content = shrink(attempt.content, fits_importers)
        self._prepare(attempt)

    def _meet_merge(self, attempt: _Attempt, met: ReadGeneration) -> None:
        """Leave alone what others have written where the merge belongs."""
        if met.sink is not Sink.MERGE:
            attempt.end(left=reasons.UsedByBuilds(attempt.name, is_tag=True))
        elif met.config == attempt.content:
            attempt.end()
        else:
            attempt.end(left=reasons.WrittenByOtherRun())

    def _look_for(self, blobs: frozenset[Digest]) -> None:
        """Find out which blobs exist that did not when the run looked, or that it did not need."""
        unknown = blobs - self._live - self._damaged
        found = live_of(self._files, unknown)
        self._live |= found
        self._missing = (self._missing | unknown) - found

    def _replacement(self, attempt: _Attempt) -> Replacement:
        manifest = attempt.encoded.manifest if attempt.encoded else b""
        new, size = content_digest(manifest), len(manifest)
        if attempt.tag:
            return Replacement(attempt.tag.digest, new, size)
        vacant = self._reader.vacant.get(attempt.write.index)
        return Replacement(vacant, new, size, media_type=MANIFEST_TYPE)
