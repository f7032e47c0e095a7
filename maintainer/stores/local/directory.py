"""One directory that BuildKit exports caches to, as a run sees it."""

import logging
import os
import re
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio.lowlevel

from maintainer.cache import Conditions
from maintainer.cacheconfig import DIRECTORY, BlobKey, Digest, IndexId, UploadKey
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import StoreError, UnfinishedError, UsageError
from maintainer.model import reason as reasons
from maintainer.model.decision import Heal, Keep, Rewritten, WriteIndex
from maintainer.model.entry import Access, KnownEntry, RememberedEntry, StoredEntry, StoreLimits
from maintainer.model.export import Export
from maintainer.model.marks import Marks
from maintainer.model.memory import Known, Probe
from maintainer.model.snapshot import Layout, Snapshot
from maintainer.stores.base import RequestLog
from maintainer.stores.local.files import (
    ALGORITHMS,
    TEMPORARY,
    Files,
    MissingError,
    Seen,
    from_nanoseconds,
    said,
    size_of,
)
from maintainer.stores.local.former import read_former
from maintainer.stores.local.index import IndexFile, Sleep
from maintainer.stores.local.look import Tags, live_of
from maintainer.stores.local.outage import find_loss
from maintainer.stores.local.recheck import LookEachTime
from maintainer.stores.local.replace import Found, Replacer
from maintainer.stores.local.strange import Strange
from maintainer.stores.local.tags import read_tags
from maintainer.stores.local.uploads import Upload, delete_upload, find_abandoned
from maintainer.stores.local.verify import is_whole
from maintainer.sweep import Recheck
from maintainer.text import printable

log = logging.getLogger(__name__)

_BATCH = 5_000
_SKEW = timedelta(hours=1)
"""So far may the clock of the files and ours be apart."""
_ABANDONED = timedelta(days=1)
"""An upload of which nothing was written for so long is not under way any more."""
_UPLOADS = 1 << 32
"""So many of the highest ids are those of uploads, which come after all blobs."""
_ATTEMPTS = 10
_PAUSE = 0.02
_LEFT_OVER = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{16}\.tmp", re.ASCII)
_FILE = "file"


class Directory:
    """A directory with tags, whose blobs nobody evicts."""

    evicts = False
    deletions_a_minute = None
    deletes = True

    def __init__(self, path: Path, *, max_index_size: int, verify: bool = False) -> None:
        self.name = f"local:{path}"
        self.requests = RequestLog()
        self.left_alone: list[Keep] = []
        self._damaged: set[Digest] = set()
        self._looked_at = datetime.max.replace(tzinfo=UTC)
        self._missing: frozenset[Digest] = frozenset()
        self._limit = max_index_size
        self._verify = verify
        self._files = Files(path)
        self._index: IndexFile | None = None
        self._tags: Tags | None = None
        can_write = os.access(path, os.W_OK | os.X_OK)
        refs = frozenset({DIRECTORY})
        self.access = Access(refs, refs if can_write else frozenset())

    def close(self) -> None:
        """Let go of the directory."""
        self._files.close()

    async def probe(self, known: Known, now: datetime, conditions: Conditions) -> Probe:
        """Read the tags, and look for every blob that they name."""
        self.left_alone.clear()
        self._damaged.clear()
        self._looked_at = now
        await _check_layout(self._files, conditions.sleep)
        self._index = IndexFile(self._files, limit=self._limit, sleep=conditions.sleep)
        content, seen = await self._index.read()
        self._index.expect(content)
        named = read_tags(content)
        conditions.progress.stage("probe: read tags", len(named))
        self._tags = tags = Tags(self._files, known.places, limit=self._limit)
        for one in named:
            if reason := conditions.budget.take(0):
                raise UnfinishedError("the tags could not all be read", reason)
            tags.take(one)
            conditions.progress.advance()
            await anyio.lowlevel.checkpoint()
        wanted = known.named_blobs.union(
            *(one.config.blobs for one in tags.read if one.config),
        )
        live = await self._find(wanted, conditions)
        self._missing = wanted - live - self._damaged
        self.left_alone += tags.left_alone.keeps()
        return Probe(
            at=now,
            access=self.access,
            lists=True,
            entries=(),
            listing_complete=True,
            read=tuple(tags.read),
            unread=tuple(tags.unread),
            adopted={},
            found=frozenset(tags.found),
            gone=tags.gone,
            live_blobs=live,
            missing_blobs=wanted - live,
            read_by_builders={},
            layout=Layout(
                changed_at=seen.modified_at,
                held={digest: frozenset(names) for digest, names in tags.held.items()},
                pinned=tags.pinned,
                others=frozenset(tags.others),
                broken=tuple(tags.broken),
                former=await self._former(known, now, conditions),
            ),
        )

    async def _former(
        self, known: Known, now: datetime, conditions: Conditions
    ) -> frozenset[Digest]:
        """Find out what tags may have needed since the last run, though none does now."""
        if known.looked_at is None:
            return frozenset()  # Nothing is known, so nothing is known to be unneeded.
        former: set[Digest] = set()
        since = min(known.looked_at - _SKEW, now - conditions.settings.grace)
        for blobs in read_former(self._files, since):
            if reason := conditions.budget.take(0):
                raise UnfinishedError("former exports could not all be read", reason)
            former |= blobs
            await anyio.lowlevel.checkpoint()
        return frozenset(former)

    async def _find(self, wanted: frozenset[Digest], conditions: Conditions) -> frozenset[Digest]:
        """Find out which blobs exist and, if that is wanted, are whole."""
        conditions.progress.stage("probe: look for blobs", len(wanted))
        live: set[Digest] = set()
        blobs = sorted(wanted)
        step = 1 if self._verify else _BATCH
        for place in range(0, len(blobs), step):
            if reason := conditions.budget.take(0):
                raise UnfinishedError("the blobs could not all be looked for", reason)
            found = live_of(self._files, blobs[place : place + step])
            live |= await self._whole(found, conditions) if self._verify else found
            conditions.progress.advance(step)
            await anyio.lowlevel.checkpoint()
        return frozenset(live)

    async def _whole(self, blobs: frozenset[Digest], conditions: Conditions) -> frozenset[Digest]:
        """Give those of some blobs that are not damaged."""
        sizes = self._tags.sizes if self._tags else {}
        whole = set()
        for digest in blobs:
            if await is_whole(self._files, digest, sizes.get(digest, ()), conditions.budget):
                whole.add(digest)
                continue
            log.warning("%s: its content does not match its digest", digest)
            self.left_alone.append(Keep(digest, DIRECTORY, reasons.Damaged()))
            self._damaged.add(digest)
        return frozenset(whole)

    def further_entries(self) -> Iterator[Sequence[StoredEntry]]:
        """List the files, some thousands at a time; then the uploads that builds have left."""
        strange = Strange()
        batch: list[StoredEntry] = []
        for name in self._algorithms():
            if name not in ALGORITHMS:
                strange.add(f"blobs/{name}", reasons.NotABlobDirectory())
                continue
            for entry in _files_in(self._files, name, strange):
                batch.append(entry)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        yield batch
        before = self._looked_at - _ABANDONED
        yield [_stored_upload(one) for one in find_abandoned(self._files, before)]
        self.left_alone += strange.keeps()

    def _algorithms(self) -> list[str]:
        where = self._files.directory("blobs")
        if where is None:
            return []
        with said("blobs"), os.scandir(where) as found:
            return sorted(entry.name for entry in found)

    def find_outage(
        self,
        known: Known,
        remembered: Sequence[RememberedEntry],
        probe: Probe,
        snapshot: Snapshot,
        limits: StoreLimits,
    ) -> str | None:
        """Return how much is gone: nobody evicts here, so much is an accident."""
        del remembered, limits
        return find_loss(known, probe, snapshot)

    async def limits(self, probe: Probe, conditions: Conditions) -> StoreLimits:
        """Return what is never looked at: nobody evicts here."""
        del probe, conditions
        return StoreLimits()

    def checker(
        self, known: Known, conditions: Conditions, *, quota: int, accept_loss: bool
    ) -> None:
        """Return None: a probe has seen the files."""
        del known, conditions, quota, accept_loss

    async def rewrite(
        self, writes: Sequence[WriteIndex], marks: Marks, conditions: Conditions
    ) -> AsyncIterator[Rewritten]:
        """Replace what tags lead to, all at once."""
        if not writes or self._index is None or self._tags is None:
            return
        self._delete_left_overs(marks.snapshot.now - conditions.settings.grace)
        replacer = Replacer(
            self._files,
            self._index,
            self._tags,
            Found(
                live=marks.snapshot.live_blobs,
                missing=self._missing,
                damaged=frozenset(self._damaged),
                refused=frozenset(
                    one.id for one in marks.indexes if one.newest and one.newest.violation
                ),
            ),
            limit=self._limit,
        )
        for one in await replacer.replace(writes, conditions.budget):
            yield one

    def recheck(
        self, marks: Marks, rewritten: Mapping[IndexId, Rewritten], conditions: Conditions
    ) -> Recheck:
        """Give what looks whether a build has exported meanwhile, or is about to."""
        del rewritten
        layout = marks.snapshot.layout
        exported_at = layout.changed_at if layout else marks.snapshot.now
        return LookEachTime(self._files, self._index, conditions.clock, exported_at)

    async def wait_for_index(
        self,
        export: Export,
        snapshot: Snapshot,
        waits: Iterator[timedelta],
        conditions: Conditions,
    ) -> bool:
        """Wait for nobody: each deletion looks whether a build exports."""
        del export, snapshot, waits, conditions
        return False

    async def heal(
        self,
        marks: Marks,
        rewritten: Mapping[IndexId, Rewritten],
        deleted: Sequence[KnownEntry],
        conditions: Conditions,
    ) -> AsyncIterator[Heal]:
        """Heal nothing: no build exports between the look and the deletion that it allows."""
        del marks, rewritten, deleted, conditions
        return
        yield

    async def delete(self, entry: KnownEntry) -> bool:
        """Delete a file, if it is still what was seen."""
        if isinstance(entry.parsed, UploadKey):
            seen = Seen(entry.size, entry.created_at)
            return delete_upload(self._files, entry.parsed.name, seen)
        if not isinstance(entry.parsed, BlobKey):
            raise StoreError(f"{printable(entry.key)} is no blob")
        return self._files.delete_blob(entry.parsed.digest, Seen(entry.size, entry.created_at))

    def _delete_left_overs(self, before: datetime) -> None:
        """Delete temporary files that runs have left which were killed."""
        with said(self.name), os.scandir(self._files.root) as found:
            names = [entry.name for entry in found if _LEFT_OVER.fullmatch(entry.name)]
        for name in names:
            try:
                with said(name):
                    status = os.stat(name, dir_fd=self._files.root, follow_symlinks=False)
            except MissingError:
                continue  # The run that wrote it was not killed.
            if stat.S_ISREG(status.st_mode) and from_nanoseconds(status.st_mtime_ns) < before:
                self._files.delete_left_over(name)


@contextmanager
def open_directory(path: Path, *, max_index_size: int, verify: bool = False) -> Iterator[Directory]:
    """Open a directory. Raises StoreError if there is none, UsageError if there can be none."""
    directory = Directory(_resolved(path), max_index_size=max_index_size, verify=verify)
    try:
        yield directory
    finally:
        directory.close()


def _resolved(path: Path) -> Path:
    """Give the one name of a directory: it has one part of the graph, whoever looks at it."""
    try:
        path = path.expanduser()
        path.lstat()
    except OSError:
        pass  # Opening it will say so, and why.
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"local:{printable(str(path))} can be no directory: {error}") from None
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "it is a symbolic link that leads to itself"
        raise StoreError(f"local:{printable(str(path))} cannot be opened: {reason}") from None


async def _check_layout(files: Files, sleep: Sleep) -> None:
    """Raise StoreError if this is no image layout: maybe a disk is not mounted."""
    for attempt in range(_ATTEMPTS):
        try:
            content, _ = files.read("oci-layout", limit=4096)
        except StoreError as error:
            raise StoreError(f"{files.path} is no OCI image layout: {error}") from None
        if b'"imageLayoutVersion"' in content:
            return
        # Builders empty it before they write it, each time that they export.
        await sleep(_PAUSE * (attempt + 1))
    raise StoreError(f"{files.path} is no OCI image layout: oci-layout says no version")


def _files_in(files: Files, algorithm: str, strange: Strange) -> Iterator[StoredEntry]:
    """List the files of one algorithm; what is no blob is told in `strange`."""
    for name, status in files.list_blobs(algorithm):
        digest = Digest(f"{algorithm}:{name}")
        if not is_digest(digest):
            strange.add(f"blobs/{algorithm}/{name}", reasons.NotADigest())
        elif stat.S_ISREG(status.st_mode):
            yield _stored(digest, status)
        else:
            is_link = stat.S_ISLNK(status.st_mode)
            strange.add(f"blobs/{algorithm}/{name}", reasons.NotAFile(is_link))


def _stored(digest: Digest, status: os.stat_result) -> StoredEntry:
    modified_at = from_nanoseconds(status.st_mtime_ns)
    return StoredEntry(
        id=int(digest.partition(":")[2][:16], 16) >> 1,
        ref=DIRECTORY,
        key=digest,
        version=_FILE,
        size=size_of(status),
        created_at=modified_at,
        last_accessed_at=modified_at,
        parsed=BlobKey(digest),
    )


def _stored_upload(upload: Upload) -> StoredEntry:
    return StoredEntry(
        id=2**63 - 1 - int(upload.name[:8], 16) % _UPLOADS,
        ref=DIRECTORY,
        key=str(UploadKey(upload.name)),
        version=_FILE,
        size=upload.seen.size,
        created_at=upload.seen.modified_at,
        last_accessed_at=upload.seen.modified_at,
        parsed=UploadKey(upload.name),
    )
