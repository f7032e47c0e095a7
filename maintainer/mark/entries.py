"""What each entry is, by the needs of all indexes together, and since when."""

from collections.abc import Iterable
from datetime import datetime

from maintainer.cacheconfig import BlobKey, Digest, IndexId, IndexKey, SignatureKey, UploadKey
from maintainer.model import reason as reasons
from maintainer.model.entry import FAR_AHEAD, KnownEntry
from maintainer.model.index import index_of, read_until
from maintainer.model.marks import Index, Mark, State
from maintainer.model.snapshot import Snapshot


class Marker:
    """Marks entries one by one, by the needs of all indexes together."""

    def __init__(self, snapshot: Snapshot, indexes: tuple[Index, ...]) -> None:
        self.snapshot = snapshot
        self.indexes = {index.id: index for index in indexes}
        self.current = {one.store_id for index in indexes for one in index.current}
        self.unread = {(one.index, one.number) for one in snapshot.unread}
        self.needed: dict[Digest, IndexId] = {}
        self.referenced_now: dict[Digest, IndexId] = {}
        self.referenced_until: dict[Digest, datetime] = {}
        self.read_until: dict[int | None, datetime] = {}
        self.facts = snapshot.facts
        for index in indexes:
            for blob in index.needs.blobs:
                self.needed.setdefault(blob, index.id)
        # Whatever is needed is reachable, so only the rest can be dangling since some time.
        for index in indexes:
            for blob in self._not_needed(index.referenced):
                self.referenced_now.setdefault(blob, index.id)
        self._remember_what_builders_read()
        self.signed_content = {
            one.content_digest: str(one.key) for one in snapshot.generations if one.exists
        }

    def _remember_what_builders_read(self) -> None:
        """Record that a generation and its blobs were needed until builders read a newer one."""
        snapshot = self.snapshot
        times = read_until(snapshot.generations, snapshot.now, snapshot.marked_at)
        for one in self.snapshot.generations:
            if until := times.get(one.generation_id):
                self.read_until[one.store_id] = until
                for blob in self._not_needed(one.blobs):
                    self.referenced_until[blob] = max(until, self.referenced_until.get(blob, until))

    def _not_needed(self, blobs: Iterable[Digest]) -> list[Digest]:
        return [blob for blob in blobs if blob not in self.needed]

    def mark(self, entry: KnownEntry) -> Mark:
        """Return the state of one entry, and the reason."""
        if entry.parsed is None or entry.ref not in self.snapshot.access.readable:
            return self._mark_out_of_reach(entry)
        if isinstance(entry.parsed, BlobKey):
            return self._mark_blob(entry, entry.parsed.digest)
        if isinstance(entry.parsed, SignatureKey):
            return self._mark_signature(entry, entry.parsed.digest)
        if isinstance(entry.parsed, UploadKey):
            return Mark(entry, State.DANGLING, reasons.AbandonedUpload(), entry.last_use_at)
        return self._mark_generation(entry, entry.parsed)

    def _mark_out_of_reach(self, entry: KnownEntry) -> Mark:
        """Mark an entry of another tool, or in a ref that the token cannot read."""
        reason = self.facts.closed_refs.get(entry.ref)
        is_readable = entry.ref in self.snapshot.access.readable
        if reason and entry.can_be_deleted and not is_readable:
            return Mark(entry, State.CLOSED, reason, _closed_since(entry, reason))
        if entry.parsed is None:
            return Mark(entry, State.FOREIGN, reasons.OtherTool())
        return Mark(entry, State.UNREADABLE, reasons.UnreadableRef(entry.ref))

    def _mark_blob(self, entry: KnownEntry, digest: Digest) -> Mark:
        if entry.content_missing_since:
            since = entry.content_missing_since
            return Mark(entry, State.WITHOUT_CONTENT, reasons.NoContent(), since)
        if index := self.needed.get(digest):
            return Mark(entry, State.REACHABLE, reasons.Needed(str(index), index.ref))
        if reason := self.facts.pinned.get(digest):
            return Mark(entry, State.REACHABLE, reason)
        if holders := self.facts.manifest_blobs.get(digest):
            return Mark(
                entry, State.NEWEST, reasons.ReadByBuilds(), self.snapshot.now, min(holders)
            )
        departed = self.snapshot.departed.get(digest)
        if index := self.referenced_now.get(digest):
            reason = departed or reasons.ReferencedUntilNow(index=str(index), ref=index.ref)
            return Mark(entry, State.DANGLING, reason, self.snapshot.now)
        until = self.referenced_until.get(digest)
        if digest in self.facts.recent_roots and self.facts.quiet_since:
            until = max(self.facts.quiet_since, until or self.facts.quiet_since)
        if digest in self.snapshot.leaving:
            until = self.snapshot.now
        since = self._unreferenced_since(entry, until)
        return Mark(entry, State.DANGLING, departed or reasons.Unreferenced(), since)

    def _mark_signature(self, entry: KnownEntry, signed: Digest) -> Mark:
        if signed in self.signed_content:
            return Mark(entry, State.REACHABLE, reasons.Signs(self.signed_content[signed]))
        since = self._unreferenced_since(entry, None)
        return Mark(entry, State.DANGLING, reasons.SignedIndexGone(), since)

    def _mark_generation(self, entry: KnownEntry, key: IndexKey) -> Mark:
        index = index_of(entry.ref, key)
        if index is None:
            return Mark(entry, State.FOREIGN, reasons.ForeignKey(entry.ref))
        if (index, key.generation) in self.unread:
            return Mark(entry, State.UNREAD, reasons.Unread(), index=index)
        if index.signed:
            return Mark(entry, State.SIGNED, reasons.Signed(), index=index)
        newest = self.indexes[index].generations[-1]
        if entry.store_id in self.current:
            return Mark(entry, State.NEWEST, reasons.ReadByBuilds(), self.snapshot.now, index)
        since = self._since_builders_read(entry)
        return Mark(entry, State.SUPERSEDED, reasons.Superseded(by=newest.number), since, index)

    def _since_builders_read(self, entry: KnownEntry) -> datetime:
        """Return since when builders have not read a generation.

        Builders look up only the newest one, so any later look-up of this one was ours.
        """
        until = self.read_until.get(entry.store_id)
        known = self._plausible(entry.unreferenced_since)
        return max(known, until or known) if known else self._unreferenced_since(entry, until)

    def _unreferenced_since(self, entry: KnownEntry, needed_until: datetime | None) -> datetime:
        """Return since when an entry is unreferenced: never earlier than its last use.

        A build that finds a stored blob does not upload it again, and writes its index later. Until
        then, that look-up is the only sign that the build needs the blob.
        """
        known, now = self._plausible(entry.unreferenced_since), self.snapshot.now
        # A tag may have pointed to it until the tag was last replaced: until now, if nobody knows.
        quiet = self._plausible(self.facts.quiet_since) or (self.facts.quiet_since and now)
        if known is None and entry.known_before:
            # An earlier run has needed it. If that was later than now, our clock was set back.
            times = (self.snapshot.listed_before, needed_until, quiet, entry.last_use_at, now)
            return max(filter(None, times))
        since = max(known or entry.last_use_at, entry.last_use_at)
        if not entry.known_before and self.snapshot.listed_before:
            # A copy may be under way, in which what needs it comes last.
            at_least = now if self.facts.copies_times else self.snapshot.listed_before
            since = max(since, at_least)
        was_used_since = known is None or known - entry.last_use_at < self.facts.unseen_for
        if was_used_since and quiet:
            since = max(since, quiet)
        return max(since, needed_until or since)

    def _plausible(self, moment: datetime | None) -> datetime | None:
        """Return a recorded time, unless it is far ahead: a clock was wrong when it was recorded.

        What is a little ahead stays: our own clock may be behind, for this run.
        """
        is_wrong = moment is not None and moment - self.snapshot.now > FAR_AHEAD
        return None if is_wrong else moment


def _closed_since(entry: KnownEntry, reason: reasons.ClosedRef) -> datetime:
    """Return since when no build reads an entry of a closed ref, as far as that is known."""
    if isinstance(reason, reasons.PullRequestClosed) and reason.closed_at:
        return max(reason.closed_at, entry.last_use_at)
    return entry.last_use_at
