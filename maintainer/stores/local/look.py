"""Reads the tags of a directory: which are caches, what they point to, what else is needed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from maintainer.cacheconfig import (
    NO_REF,
    Digest,
    IndexId,
    Scope,
    matches,
)
from maintainer.cacheconfig.codec import Decoded
from maintainer.cacheconfig.oci import CacheManifest, read_manifest
from maintainer.errors import StoreError
from maintainer.model import reason as reasons
from maintainer.model.index import BrokenTag, ReadGeneration, UnreadGeneration
from maintainer.model.memory import KnownPlace
from maintainer.model.reason import Reason
from maintainer.sanitize import printable
from maintainer.stores.local.disk import MissingError, TooLargeError
from maintainer.stores.local.files import Files, FileState
from maintainer.stores.local.ignored import Ignored
from maintainer.stores.local.references import References
from maintainer.stores.local.tags import Named
from maintainer.stores.oci import NUMBER, decode_tag, read_tag


@dataclass(frozen=True, slots=True)
class CacheTag:
    """A tag that is a cache, as it was read."""

    index: IndexId
    digest: Digest
    """Of its manifest."""
    config: Digest
    size: int
    """Bytes of its manifest."""
    exported_at: datetime
    """When a build has exported it last, as far as the files show."""


class Tags:
    """The tags of a directory, as read."""

    def __init__(
        self,
        files: Files,
        known: Mapping[IndexId, Mapping[int, KnownPlace]],
        *,
        written_at: datetime,
        probed_at: datetime | None,
        ended_at: datetime | None,
        limit: int,
        with_sizes: bool,
    ) -> None:
        """Begin; `index.json` was last written at `written_at`.

        The last run that was done read it at `probed_at`, and ended at `ended_at`.
        """
        self._files = files
        self._written_at = written_at
        self._probed_at = probed_at
        self._ended_at = ended_at
        self._known = known
        self._limit = limit
        self._with_sizes = with_sizes
        self._references = References(files, limit=limit)
        self.caches: list[CacheTag] = []
        self.read: list[ReadGeneration] = []
        self.unread: list[UnreadGeneration] = []
        self.found: set[int] = set()
        self.manifest_blobs: dict[Digest, set[IndexId]] = {}
        self.sizes: dict[Digest, set[int]] = {}
        """The sizes of blobs, according to manifests, if asked for."""
        self.others: set[IndexId] = set()
        """The tags that are not caches."""
        self.ignored = Ignored()
        self.broken: list[BrokenTag] = []
        self.vacant: dict[IndexId, Digest] = {}
        """The tags whose manifests are missing or damaged, and the digests of these manifests."""

    def take_read(self) -> tuple[ReadGeneration, ...]:
        """Return the contents that were read, which are not held any longer."""
        read = tuple(self.read)
        self.read.clear()
        return read

    @property
    def pinned(self) -> Mapping[Digest, Reason]:
        """The blobs that other tags need, and why."""
        return self._references.pinned

    @property
    def gone(self) -> frozenset[int]:
        """The manifests that no tag references any more, except those of unreadable tags."""
        unread = {one.index for one in self.unread}
        known = {
            place.generation_id
            for index, places in self._known.items()
            if index not in unread
            for place in places.values()
        }
        return frozenset(known - self.found)

    def add(self, named: Named, *, is_last: bool) -> None:
        """Read the tag of one descriptor; an export moves its own behind all others."""
        if named.tag and "\0" in named.tag:
            named = replace(named, tag=None)  # No build exports to it, and no database holds it.
        name = named.tag if named.tag is not None else f"descriptor {named.position}"
        index = IndexId(NO_REF, Scope(name))
        if named.problem:
            self.unread.append(UnreadGeneration(index, 0, reasons.Problem(named.problem)))
            return
        if named.digest is None:
            self._report_broken(named, name, "it references no blob")
            return
        try:
            self._add(index, named, is_last=is_last)
        except MissingError:
            self._report_lost(index, named, f"its manifest {named.digest} is missing")
        except StoreError as error:
            self.unread.append(UnreadGeneration(index, 0, reasons.Problem(str(error))))

    def _report_lost(self, index: IndexId, named: Named, problem: str) -> None:
        """Report a tag whose manifest is lost. If its content is remembered, it is only invalid."""
        if named.tag is None or named.digest is None:
            self._report_broken(named, str(index), problem)
            return
        self.vacant[index] = named.digest
        place = self._known.get(index, {}).get(NUMBER)
        if place and place.location == named.digest:
            lost = read_tag(index, named.digest, None, problem, self._written_at)
            self.read.append(lost)
        else:
            self._report_broken(named, str(index), problem)

    def _report_broken(self, named: Named, name: str, problem: str) -> None:
        """Ignore a tag without a readable manifest: its former content is unknown."""
        self.ignored.add(name, reasons.BrokenTag(problem))
        if named.tag is not None:
            self.broken.append(BrokenTag(printable(name), problem))

    def _add(self, index: IndexId, named: Named, *, is_last: bool) -> None:
        digest = named.digest or Digest("")
        content, seen = self._files.read_blob(digest, limit=self._limit)
        whole = matches(digest, content)
        manifest = read_manifest(content) if whole and named.tag is not None else None
        if not whole:
            self._report_lost(index, named, f"the content of its manifest is not {digest}")
            self._references.pin(digest, reasons.NeededByDamagedTag(str(index)))
            return
        if manifest is None:
            if named.tag is not None:
                self.others.add(index)
            self._references.pin(digest, reasons.NeededByOtherTag(str(index)))
            return
        place = self._known.get(index, {}).get(NUMBER)
        known = place if place and place.location == digest else None
        again = self._is_exported_again(seen, known, is_last=is_last)
        exported_at = max(seen.modified_at, self._written_at) if again else seen.modified_at
        tag = CacheTag(index, digest, manifest.config, seen.size, exported_at)
        self.caches.append(tag)
        for blob, size in manifest.sizes() if self._with_sizes else ():
            self.sizes.setdefault(blob, set()).add(size)
        for held in (digest, manifest.config):
            self.manifest_blobs.setdefault(held, set()).add(index)
        is_read = known and known.valid and not again
        if known and is_read and _is_whole(self._files, manifest.config, limit=self._limit):
            self.found.add(known.generation_id)
        else:
            self.read.append(self._read(tag, manifest))

    def _is_exported_again(
        self, seen: FileState, known: KnownPlace | None, *, is_last: bool
    ) -> bool:
        """Whether a build has exported a manifest since the last run that was stored before.

        The manifest shows nothing of it, nor does its tag, if that has led to it already. `known`
        is what the tag led to then, if it is the same. No build exports what a run has written,
        and what was written during that run may be its own write of other tags.
        """
        if self._probed_at is None or self._written_at <= self._probed_at:
            return False
        if known is None:
            return is_last or seen.modified_at <= self._probed_at
        is_of_that_run = self._ended_at is not None and self._written_at <= self._ended_at
        return is_last and known.is_export and not is_of_that_run

    def read_tag(self, index: IndexId, digest: Digest) -> CacheTag | None:
        """Read the manifest that a tag now points to; None if it is not a cache's."""
        content, seen = self._files.read_blob(digest, limit=self._limit)
        manifest = read_manifest(content) if matches(digest, content) else None
        if manifest is None:
            return None
        return CacheTag(index, digest, manifest.config, seen.size, seen.modified_at)

    def read_cache(self, tag: CacheTag) -> ReadGeneration:
        """Read the target of a tag, or return why an importer would refuse it."""
        manifest = read_manifest(self._files.read_blob(tag.digest, limit=self._limit)[0])
        if manifest is None:
            raise StoreError(f"{tag.digest} is not the manifest of a cache")
        return self._read(tag, manifest)

    def _read(self, tag: CacheTag, manifest: CacheManifest) -> ReadGeneration:
        decoded: Decoded | None = None
        content = b""
        try:
            content, _ = self._files.read_blob(manifest.config, limit=self._limit)
        except MissingError:
            violation = f"its config {manifest.config} is missing"
        except TooLargeError as error:
            violation = f"its config is too large: {error}"
        else:
            decoded, violation = decode_tag(manifest, content, tag.size)
        return read_tag(
            tag.index, tag.digest, decoded, violation, tag.exported_at, undecoded=content
        )


def is_tag_whole(files: Files, named: Named, *, limit: int) -> bool:
    """Whether a tag's manifest and config match their digests. They are read: they may be damaged.

    False as well if they cannot be read.
    """
    if named.digest is None:
        return False
    try:
        content, _ = files.read_blob(named.digest, limit=limit)
        if not matches(named.digest, content):
            return False
        manifest = read_manifest(content) if named.tag is not None else None
        return manifest is None or _is_whole(files, manifest.config, limit=limit)
    except StoreError:
        return False


def _is_whole(files: Files, config: Digest, *, limit: int) -> bool:
    """Whether a config matches its digest. It is read, because it may be damaged."""
    try:
        return matches(config, files.read_blob(config, limit=limit)[0])
    except (MissingError, TooLargeError):
        return False


def states_of(files: Files, blobs: Iterable[Digest]) -> dict[Digest, FileState]:
    """Return the files of the blobs that exist."""
    return {blob: seen for blob in blobs if (seen := files.stat(blob))}
