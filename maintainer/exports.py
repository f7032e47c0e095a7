"""Exports in progress: blobs that a build has uploaded, and that no index references yet. Pure.

With the attributes `repository` and `ghtoken`, which build-push-action sets, an export lists the
stored blobs once when it begins, and looks none of them up. It uploads the missing ones, and writes
its index last. Until then, its new blobs are the only sign that it relies on stored ones.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from maintainer.cacheconfig import BlobKey, Digest, Ref, SignatureKey
from maintainer.model.entry import FAR_AHEAD, KnownEntry
from maintainer.model.export import Export
from maintainer.model.index import index_of
from maintainer.model.snapshot import Snapshot

LONGEST_EXPORT = timedelta(hours=1)
"""A build that has uploaded a blob longer ago than this, but no index, was killed."""


def find_export(snapshot: Snapshot, *, unreadable_too: bool = True) -> Export | None:
    """Return the export in progress that began first, in any ref, if there is one.

    In a ref that the token reads, an export has ended when an index that was created after its blob
    references this blob. An index that another build or a run wrote since proves nothing. In
    other refs, any later index ends it, because its content is unknown. Without `unreadable_too`,
    other refs do not count.
    """
    young = [
        entry
        for entry in snapshot.entries
        if (unreadable_too or entry.ref in snapshot.access.readable)
        and _is_recent_upload(entry, snapshot.now)
    ]
    if not young:
        return None
    finished = _Finished(snapshot)
    return min(
        (Export(entry.created_at, entry.ref) for entry in young if not finished.has(entry)),
        default=None,
    )


def keep_signs(snapshot: Snapshot, uploads: Iterable[KnownEntry]) -> tuple[KnownEntry, ...]:
    """Return those of some uploads that show exports in progress: of each ref the first.

    `find_export` finds the same ones by them as by all uploads, of which there may be a million.
    The snapshot has the indexes.
    """
    finished = _Finished(snapshot)
    first: dict[Ref, KnownEntry] = {}
    for entry in uploads:
        known = first.get(entry.ref)
        if known and known.created_at <= entry.created_at:
            continue
        if _is_recent_upload(entry, snapshot.now) and not finished.has(entry):
            first[entry.ref] = entry
    return tuple(first.values())


def _is_recent_upload(entry: KnownEntry, now: datetime) -> bool:
    """Whether a build that uploaded this, and may still be running, has to write an index yet."""
    is_upload = isinstance(entry.parsed, BlobKey | SignatureKey)
    # A time that is far ahead is wrong: it would stop all deletions until then.
    return is_upload and -FAR_AHEAD < now - entry.created_at < LONGEST_EXPORT


def find_new_export(
    uploads: Iterable[tuple[Ref, Digest, datetime]], referenced: Iterable[tuple[Ref, Digest]]
) -> Export | None:
    """Return the export that has uploaded blobs since the run began, if there is one.

    `referenced` are the blobs of the indexes that the run has merged in since then.
    """
    known = frozenset(referenced)
    return min(
        (Export(at, ref) for ref, digest, at in uploads if (ref, digest) not in known),
        default=None,
    )


class _Finished:
    """The blobs whose export has ended."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._readable = snapshot.access.readable
        self._referenced = dict(snapshot.recent_references)
        self._newest: defaultdict[Ref, list[datetime]] = defaultdict(list)
        for one in snapshot.generations:
            for digest in (*one.blobs, one.content_digest):
                place = (one.index.ref, digest)
                known = self._referenced.get(place, one.created_at)
                self._referenced[place] = max(known, one.created_at)
        for entry in snapshot.entries:
            if entry.ref not in self._readable and index_of(entry.ref, entry.parsed):
                self._newest[entry.ref].append(entry.created_at)

    def has(self, entry: KnownEntry) -> bool:
        """Whether an index that may reference an entry was created after it."""
        if entry.ref in self._readable and isinstance(entry.parsed, BlobKey | SignatureKey):
            last = self._referenced.get((entry.ref, entry.parsed.digest))
        else:
            last = max(self._newest[entry.ref], default=None)
        return last is not None and last >= entry.created_at
