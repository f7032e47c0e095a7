"""One directory that BuildKit exports caches to."""

import logging
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import anyio.lowlevel

from maintainer.cacheconfig import NO_REF, BlobKey, Digest, IndexId, Scope, UploadKey
from maintainer.cacheconfig.keys import is_digest
from maintainer.cacheconfig.oci import IMPORT_LIMIT
from maintainer.errors import StoreError, UnfinishedError, UnknownCacheError, UsageError
from maintainer.model import reason as reasons
from maintainer.model.decision import Keep
from maintainer.model.entry import (
    LONG_AGO,
    Access,
    KnownEntry,
    Listing,
    Refusal,
    StoredEntry,
    StoreLimits,
)
from maintainer.model.index import ReadGeneration, UnreadGeneration
from maintainer.model.memory import Memory
from maintainer.model.store import Abilities, StoreFacts
from maintainer.paths import resolve
from maintainer.sanitize import is_unicode, printable
from maintainer.spool import Spool
from maintainer.stores.base import (
    Change,
    ContentCheck,
    Existing,
    NewVersion,
    Recheck,
    RunContext,
    Since,
    SwapResult,
    Versions,
)
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.local.disk import MissingError, translate_errors
from maintainer.stores.local.files import (
    ALGORITHMS,
    LEFT_OVER,
    WHERE_NONE_IS,
    Files,
    FileState,
    from_nanoseconds,
    size_of,
)
from maintainer.stores.local.ignored import Ignored
from maintainer.stores.local.index import IndexFile, Sleep
from maintainer.stores.local.look import Tags, is_tag_whole, states_of
from maintainer.stores.local.recent import read_recent_roots
from maintainer.stores.local.recheck import RecheckEachTime
from maintainer.stores.local.replace import Replacer
from maintainer.stores.local.tags import read_tags
from maintainer.stores.local.uploads import Upload, delete_upload, find_abandoned
from maintainer.stores.local.verify import find_damage
from maintainer.stores.looking import configured_limits

log = logging.getLogger(__name__)

_BATCH = 5_000
_MOST_LOGGED = 10
"""How many damaged blobs are logged, each in a line."""
_SKEW = timedelta(days=1)
"""The largest difference between the clock of the files and ours: more than that of time zones."""
_COARSEST_TIMES = timedelta(seconds=2)
"""File systems such as NFS and FAT cut off the times of files, to so much at most."""
_ABANDONED = timedelta(days=1)
"""An upload that has received no bytes for this long is no longer in progress."""
_LEFT_OVER_AFTER = timedelta(minutes=2)
"""No run has a temporary file for that long, however long it waits for the lock."""
_UPLOADS = 1 << 32
"""How many of the highest ids are for uploads, which come after all blobs."""
_ATTEMPTS = 10
_PAUSE = 0.02
_FILE = "file"
_MOUNTED_READ_ONLY = Refusal("it is mounted read-only", "mount it so that it can be written")


@dataclass(frozen=True, slots=True)
class _LastProbe:
    """The result of a probe of the tags, for later stages."""

    sizes: Mapping[Digest, Collection[int]]
    """The sizes of blobs, according to manifests, if contents are verified."""
    damaged: frozenset[Digest]
    """The blobs that an earlier run found damaged."""
    missing: set[Digest]
    """The blobs that were not found since."""
    exported_at: datetime
    """When a build may have written `index.json` last."""
    replacer: Replacer


class Directory:
    """A directory with tags, which evicts nothing."""

    abilities = Abilities(
        noun="directory",
        shows_exports=True,
        excludes_exports=True,
        looks_cheaply=True,
        writes_together=True,
    )

    def __init__(self, path: Path, *, max_index_size: int, verify: bool = False) -> None:
        self.name = f"local:{path}"
        self.requests = RequestLog()
        self._ignored: list[Keep] = []
        self._limit = max_index_size
        self._verify = verify
        self._logged: set[Digest] = set()
        """The damaged blobs that were logged."""
        self._files = Files(path)
        self._index = IndexFile(self._files, limit=max_index_size)
        self._seen: _LastProbe | None = None
        can_write = os.access(path, os.W_OK | os.X_OK, effective_ids=True)
        refs = frozenset({NO_REF})
        refusal = _MOUNTED_READ_ONLY if self._files.is_mounted_read_only else Refusal()
        self.access = Access(refs, refs if can_write else frozenset(), refusal)

    @property
    def ignored(self) -> Sequence[Keep]:
        """What the last probe ignored: files that are not blobs, and unreadable tags."""
        return self._ignored

    @property
    def _probed(self) -> _LastProbe:
        if self._seen is None:
            raise StoreError(f"{self.name} was not read")
        return self._seen

    def close(self) -> None:
        """Close the directory."""
        self._files.close()

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return what the settings allow; directories themselves do not evict."""
        del now
        return configured_limits(context)

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List the files; then the uploads that builds left."""
        await _check_layout(self._files, context.sleep)
        ignored = Ignored()
        spool = Spool()
        for batch in self._batches(now - _ABANDONED, ignored):
            spool.add(batch)
            await anyio.lowlevel.checkpoint()
            if reason := context.budget.reserve(0):
                raise UnfinishedError("the entries could not all be listed", reason)
        self._ignored = ignored.keeps()
        return Listing(spool, complete=True, state=await self._state(context.sleep))

    async def _state(self, sleep: Sleep) -> bytes | None:
        """Return what the tags point to; None if a run has to read it, as some may be damaged.

        Raises StoreError if nobody can read `index.json`: without it, this is no cache.
        """
        content, seen = await self._index.read(sleep)
        if self._verify:
            return None
        for one in read_tags(content):
            if not is_tag_whole(self._files, one, limit=self._limit):
                return None
            await anyio.lowlevel.checkpoint()
        return f"{seen.modified_at.isoformat()} ".encode() + content

    def _batches(self, before: datetime, ignored: Ignored) -> Iterator[Sequence[StoredEntry]]:
        batch: list[StoredEntry] = []
        for name in self._algorithms():
            if name not in ALGORITHMS:
                ignored.add(f"blobs/{name}", reasons.NotABlobDirectory())
                continue
            for entry in _files_in(self._files, name, ignored):
                batch.append(entry)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        yield batch
        yield [_stored_upload(one) for one in find_abandoned(self._files, before)]

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Read the tags, and the needs of other manifests."""
        content, seen = await self._index.read(context.sleep)
        self._index.expect(content)
        named = read_tags(content)
        context.progress.stage("probe: read tags", len(named))
        tags = Tags(
            self._files,
            known.places,
            written_at=min(seen.modified_at, now),
            probed_at=known.probed_at,
            ended_at=known.ended_at,
            limit=self._limit,
            with_sizes=self._verify,
        )
        for one in named:
            if reason := context.budget.reserve(0):
                raise UnfinishedError("the tags could not all be read", reason)
            tags.add(one, is_last=one is named[-1])
            context.progress.advance()
            await anyio.lowlevel.checkpoint()
        self._ignored = [*tags.ignored.keeps(), *self._ignored]
        missing: set[Digest] = set()
        replacer = Replacer(self._files, self._index, tags, missing, limit=self._limit)
        exported_at = _exported_at(seen.modified_at, known)
        self._seen = _LastProbe(tags.sizes, known.broken_blobs, missing, exported_at, replacer)
        hidden: dict[Digest, str] = {}
        recent_roots = await self._recent_roots(known, now, context, hidden)
        unread = (
            UnreadGeneration(IndexId(NO_REF, Scope(digest)), 0, reasons.Problem(problem))
            for digest, problem in sorted(hidden.items())
        )
        return Versions(
            read=tags.take_read(),
            unread=(*tags.unread, *unread),
            found=frozenset(tags.found),
            gone=tags.gone,
            facts=StoreFacts(
                quiet_since=seen.modified_at,
                copies_times=True,
                manifest_blobs={
                    digest: frozenset(names) for digest, names in tags.manifest_blobs.items()
                },
                pinned=tags.pinned,
                others=frozenset(tags.others),
                recent_roots=recent_roots,
                broken=tuple(tags.broken),
                index_limit=IMPORT_LIMIT,
            ),
        )

    async def _recent_roots(
        self, known: Memory, now: datetime, context: RunContext, unread: dict[Digest, str]
    ) -> frozenset[Digest]:
        """Find the blobs that tags may have needed since the last run, but no longer need."""
        if known.probed_at is None and not known.places:
            return frozenset()  # Nothing is known, so nothing is known to be unreferenced.
        former: set[Digest] = set()
        # A run that was cut off has noticed what is unreferenced, and has not read the manifests.
        since = min((known.probed_at or LONG_AGO + _SKEW) - _SKEW, now - context.settings.grace)
        for blobs in read_recent_roots(self._files, since, unread):
            if reason := context.budget.reserve(0):
                raise UnfinishedError("the replaced exports could not all be read", reason)
            former |= blobs
            await anyio.lowlevel.checkpoint()
        return frozenset(former)

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> Existing:
        """Find out which blobs exist and, if requested, have the right content."""
        live: set[Digest] = set()
        there: set[Digest] = set()
        wanted = sorted(blobs)
        step = 1 if self._verify else _BATCH
        for place in range(0, len(wanted), step):
            if reason := context.budget.reserve(0):
                raise UnfinishedError("the blobs could not all be checked", reason)
            found = states_of(self._files, wanted[place : place + step])
            there |= found.keys()
            doubtful = [blob for blob, seen in found.items() if self._is_doubtful(blob, seen)]
            live |= found.keys() - doubtful
            live |= await self._whole(doubtful, context)
            context.progress.advance(step)
            await anyio.lowlevel.checkpoint()
        # A damaged blob still exists, so no build would store it again.
        probed = self._probed
        probed.missing.update(blobs - there)
        probed.missing.difference_update(there)
        return Existing(frozenset(live), damaged=frozenset(there - live))

    def _is_doubtful(self, blob: Digest, seen: FileState) -> bool:
        """Whether to read a blob: it may be empty after a power cut, or was damaged before."""
        return self._verify or not seen.size or blob in self._probed.damaged

    async def _whole(self, blobs: Iterable[Digest], context: RunContext) -> frozenset[Digest]:
        """Return the blobs that are not damaged."""
        sizes = self._probed.sizes
        whole = set()
        for digest in blobs:
            damage = await find_damage(self._files, digest, sizes.get(digest, ()), context.budget)
            if not damage:
                whole.add(digest)
                continue
            self._ignored.append(Keep(digest, NO_REF, reasons.Damaged()))
            self._log_damage(digest, damage)
        return frozenset(whole)

    def _log_damage(self, blob: Digest, damage: str) -> None:
        """Log that a blob is damaged, unless many are: after a power cut it may be all of them."""
        if blob in self._logged or len(self._logged) == _MOST_LOGGED:
            return
        self._logged.add(blob)
        log.warning("%s: %s", blob, damage)
        if len(self._logged) == _MOST_LOGGED:
            log.warning("if more blobs are damaged, only the report says so")

    def _algorithms(self) -> list[str]:
        where = self._files.directory("blobs")
        if where is None:
            return []
        with translate_errors("blobs"), os.scandir(where) as found:
            return sorted(entry.name for entry in found)

    async def check(self, blob: Digest) -> ContentCheck:
        """Check whether a blob exists: existing blobs can be read."""
        is_there = self._files.stat(blob) is not None
        return ContentCheck(is_there, is_readable=is_there)

    async def touch(self, key: str) -> bool:
        """Do nothing: directories do not evict."""
        del key
        return True

    async def new_versions(self) -> Sequence[NewVersion]:
        """Return none: no build exports between a check and the deletion that it allows."""
        return ()

    async def read(self, version: NewVersion) -> ReadGeneration:
        """Refuse: there are no new versions."""
        raise StoreError(f"{version.index} is not new")

    async def swap(self, changes: Sequence[Change], context: RunContext) -> Sequence[SwapResult]:
        """Replace the targets of tags, all at once."""
        self._delete_left_overs(context)
        return await self._probed.replacer.swap(changes, context.sleep)

    def activity(self, since: Since, context: RunContext) -> Recheck:
        """Return a check of whether a build has exported since the run began, or is about to."""
        self._delete_left_overs(context)
        del since
        return RecheckEachTime(self._files, self._index, context.clock, self._probed.exported_at)

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete a file, if it has not changed since the run saw it."""
        del context
        if isinstance(entry.parsed, UploadKey):
            seen = FileState(entry.size, entry.created_at)
            return delete_upload(self._files, entry.parsed.name, seen)
        if not isinstance(entry.parsed, BlobKey):
            raise StoreError(f"{printable(entry.key)} is not a blob")
        return self._files.delete_blob(entry.parsed.digest, FileState(entry.size, entry.created_at))

    def _delete_left_overs(self, context: RunContext) -> None:
        """Delete temporary files that killed runs left, not those of a run that is still alive."""
        before = context.clock() - max(context.settings.grace, _LEFT_OVER_AFTER)
        for name in filter(LEFT_OVER.fullmatch, self._files.names()):
            self._files.delete_left_over(name, before)


def _exported_at(written_at: datetime, known: Memory) -> datetime:
    """Return when a build has exported last; what was written during the last run may be ours."""
    if known.probed_at is None or known.ended_at is None:
        return written_at
    began_at = known.probed_at - _COARSEST_TIMES
    return LONG_AGO if began_at <= written_at <= known.ended_at else written_at


@contextmanager
def open_directory(path: Path, *, max_index_size: int, verify: bool = False) -> Iterator[Directory]:
    """Open a directory. Raises StoreError if it does not exist, UsageError if it is not valid."""
    directory = Directory(_resolved(path), max_index_size=max_index_size, verify=verify)
    try:
        yield directory
    finally:
        directory.close()


def _resolved(path: Path) -> Path:
    """Return the unique name of a directory: by any path, it has the same part of the graph."""
    try:
        path = path.expanduser()
        path.lstat()
    except OSError:
        pass  # Opening it will report the reason.
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"local:{printable(str(path))} is not a valid directory: {error}"
        ) from None
    try:
        path = resolve(path)
    except OSError as error:
        raise StoreError(
            f"local:{printable(str(path))} cannot be opened: {error.strerror}"
        ) from None
    if not is_unicode(str(path)):
        raise UsageError(
            f"local:{printable(str(path))} is not a valid directory: its path is not UTF-8, so no "
            "database can store it"
        )
    return path


async def _check_layout(files: Files, sleep: Sleep) -> None:
    """Raise StoreError if this is not an image layout: a disk may not be mounted."""
    for attempt in range(_ATTEMPTS):
        try:
            content, _ = files.read("oci-layout", limit=4096)
        except MissingError as error:
            raise UnknownCacheError(
                f"{files.path} is not an OCI image layout, {error}: {WHERE_NONE_IS}"
            ) from None
        except StoreError as error:
            raise StoreError(f"{files.path} is not an OCI image layout: {error}") from None
        if b'"imageLayoutVersion"' in content:
            return
        # Builders empty it before they write it, in every export.
        await sleep(_PAUSE * (attempt + 1))
    raise StoreError(f"{files.path} is not an OCI image layout: oci-layout has no version")


def _files_in(files: Files, algorithm: str, ignored: Ignored) -> Iterator[StoredEntry]:
    """List the files of one algorithm; other files are added to `ignored`."""
    for name, status in files.list_blobs(algorithm):
        digest = Digest(f"{algorithm}:{name}")
        if not is_digest(digest):
            ignored.add(f"blobs/{algorithm}/{name}", reasons.NotADigest())
        elif stat.S_ISREG(status.st_mode):
            yield _stored(digest, status)
        else:
            is_link = stat.S_ISLNK(status.st_mode)
            ignored.add(f"blobs/{algorithm}/{name}", reasons.NotAFile(is_link))


def _stored(digest: Digest, status: os.stat_result) -> StoredEntry:
    modified_at = from_nanoseconds(status.st_mtime_ns)
    return StoredEntry(
        id=int(digest.partition(":")[2][:16], 16) >> 1,
        ref=NO_REF,
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
        ref=NO_REF,
        key=str(UploadKey(upload.name)),
        version=_FILE,
        size=upload.seen.size,
        created_at=upload.seen.modified_at,
        last_accessed_at=upload.seen.modified_at,
        parsed=UploadKey(upload.name),
    )
