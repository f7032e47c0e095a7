"""Check contents: a blob that cannot be downloaded does not exist, even if it is listed.

An entry can be listed, and found by a look-up, while its content is gone. A build that finds it
fails. An export finds it, uploads nothing, and references it in its index. So runs check the blobs
that indexes need: they look each of them up, and download one byte of it.

A look-up counts as a use, so checks keep blobs alive, and could make GitHub evict blobs that a
build has used more recently. To prevent that, every blob that builds have used since is looked up
after it, in the order in which builds used them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from maintainer.budget import Spare
from maintainer.cacheconfig import BlobKey, Digest, Ref
from maintainer.concurrency import for_each
from maintainer.errors import BudgetExhaustedError, StoreError
from maintainer.graph.entries import Entries
from maintainer.model.checks import CheckedContents, CheckTotals
from maintainer.model.entry import KnownEntry
from maintainer.model.marks import Marks
from maintainer.model.memory import Memory
from maintainer.model.reason import Counted, LossAccepted, StorageOutage
from maintainer.stores.base import REQUESTS_TO_CHECK, ContentCheck, RunContext, Store

_NEARLY_FULL = 0.9
_MIN_OUTAGE = 5
"""This many blobs without content may be a storage outage, if they are more than half."""
_MAX_FAILURES = 8
"""After this many failed requests in a row, the run stops checking."""
_SAME_TIME = timedelta(hours=1)
"""Blobs that builds used within this time of each other are looked up in any order."""
_NEVER = datetime.min.replace(tzinfo=UTC)


async def check_content(store: Store, blob: Digest) -> ContentCheck:
    """Look up a blob and fetch its first byte; once more, by a new URL, if there is none.

    Raises StoreError or BudgetExhaustedError.
    """
    checked = await store.check(blob)
    if not checked.is_found or checked.is_readable:
        return checked
    return await store.check(blob)


@dataclass(frozen=True, slots=True)
class _Blob:
    """A blob that an index needs, and the entries that hold it where the token can read."""

    digest: Digest
    entries: tuple[KnownEntry, ...]
    checked_at: datetime | None
    is_suspect: bool
    """Whether an earlier run found no content, and a build still references it."""
    referenced_anew: bool
    """Whether an index that references it was written after that check."""

    @property
    def used_at(self) -> datetime:
        """When a build last used it, as far as known."""
        return max((entry.used_at or entry.last_use_at for entry in self.entries), default=_NEVER)

    def entry_in(self, ref: Ref | None) -> KnownEntry | None:
        """Return the entry that a look-up has found, if it is unambiguous."""
        if len(self.entries) == 1:
            return self.entries[0]
        return next((entry for entry in self.entries if entry.ref == ref), None)


@dataclass(frozen=True, slots=True)
class _LookUp:
    """One thing to look up, and whether to download a byte of it."""

    key: str
    used_at: datetime
    blob: _Blob | None = None
    entry: KnownEntry | None = None


class ContentChecker:
    """Checks the contents of one cache for one run, in as many rounds as necessary."""

    def __init__(
        self,
        store: Store,
        known: Memory,
        context: RunContext,
        *,
        quota: int | None,
        accept_loss: bool,
        every: bool = False,
    ) -> None:
        """`every` is whether all that indexes need is due, whenever it was last checked."""
        self.totals = CheckTotals()
        self.next_at: datetime | None = None
        """When a blob that is not due now is checked again, if so."""
        self._store = store
        self._known = known
        self._settings = context.settings
        self._quota = quota
        self._accept_loss = accept_loss
        self._every = every
        self._budget = context.budget
        self._progress = context.progress
        self._clock = context.clock
        self._spare: Spare | None = None
        self._seen: set[Digest] = set()
        self._broken = 0
        self._failures_in_a_row = 0
        self._looked_up: set[int] = set()

    @property
    def looked_up(self) -> frozenset[int]:
        """The entries that this run has looked up."""
        return frozenset(self._looked_up)

    async def check(self, marks: Marks, entries: Entries) -> CheckedContents:
        """Check what the indexes need and this run has not checked. Never raises StoreError."""
        round_ = CheckedContents()
        # Without checks, what an earlier run found to be broken would stay so for ever.
        may_be_due = self._settings.verify_after or marks.snapshot.broken_blobs
        if not may_be_due or not self._store.abilities.checks_contents:
            return round_
        blobs = [one for one in self._needed(marks, entries) if one.digest not in self._seen]
        due = self._within_budget(self._due(blobs, marks, entries))
        if due:
            self._progress.stage("check contents", len(due))
            for group in _grouped([*due, *self._used_since(due, blobs, marks, entries)]):
                await for_each(lambda one: self._look_up(one, round_), group)
            self._looked_up.update(round_.looked_up)
            self._beware_of_an_outage(round_)
            self.totals.broken |= round_.broken_blobs
        return round_

    def _needed(self, marks: Marks, entries: Entries) -> Iterator[_Blob]:
        referenced = frozenset().union(
            *(index.remembered.blobs for index in marks.indexes),
            *(one.blobs for index in marks.indexes for one in index.generations),
        )
        needed = frozenset().union(*(index.merged.blobs for index in marks.indexes))
        suspects = (referenced & marks.snapshot.broken_blobs) - needed
        stored: defaultdict[Digest, list[KnownEntry]] = defaultdict(list)
        for entry in entries.holding(needed | suspects):
            if entry.ref in marks.snapshot.access.readable and isinstance(entry.parsed, BlobKey):
                stored[entry.parsed.digest].append(entry)
        for digest in sorted(needed | suspects):
            held = tuple(stored[digest])
            if held:
                checks = [one.checked_at for one in held if not one.content_missing_since]
                checked_at = max((one for one in checks if one), default=None)
            else:
                checked_at = self._known.checked_blobs.get(digest)
            referenced_anew = digest in suspects and self._is_referenced_anew(digest, marks)
            yield _Blob(digest, held, checked_at, digest in suspects, referenced_anew)

    def _is_referenced_anew(self, suspect: Digest, marks: Marks) -> bool:
        """Whether an index references a blob that was written after the last check of the blob.

        Its build may have uploaded the blob again.
        """
        checked_at = self._known.checked_blobs.get(suspect, _NEVER)
        return any(
            one.created_at > checked_at and suspect in one.blobs
            for index in marks.indexes
            for one in index.generations
        )

    def _due(self, blobs: Iterable[_Blob], marks: Marks, entries: Entries) -> list[_Blob]:
        """Choose blobs to check: new ones first, then those that were checked longest ago."""
        now, blobs = marks.snapshot.now, tuple(blobs)
        limit = None if self._quota is None else _NEARLY_FULL * self._quota
        is_full = limit is not None and entries.total_size() > limit
        again = bool(self._settings.keep_alive) and not is_full

        def is_alive(one: _Blob) -> bool:
            return again and not (one.entries and now - one.used_at > self._settings.keep_alive)

        def is_due(one: _Blob) -> bool:
            if not self._settings.verify_after:
                return one.is_suspect and one.referenced_anew
            if (
                self._every
                or one.referenced_anew
                or (one.checked_at is None and not one.is_suspect)
            ):
                return True
            if not is_alive(one):
                return False
            if one.is_suspect or one.checked_at is None or one.checked_at > now:
                return True
            return now - one.checked_at >= self._settings.verify_after

        checks = (one.checked_at for one in blobs if is_alive(one) and not is_due(one))
        next_check = min((at for at in checks if at), default=None)
        self.next_at = next_check and next_check + self._settings.verify_after
        return sorted(
            filter(is_due, blobs), key=lambda one: (one.checked_at or _NEVER, one.used_at)
        )

    def _within_budget(self, due: Sequence[_Blob]) -> list[_LookUp]:
        self._spare = self._spare or self._budget.spare()
        chosen: list[_LookUp] = []
        for one in due:
            if not self._spare.reserve(REQUESTS_TO_CHECK):
                break
            chosen.append(_LookUp(str(BlobKey(one.digest)), one.used_at, blob=one))
            self._seen.add(one.digest)
        self.totals.deferred += len(due) - len(chosen)
        return chosen

    def _used_since(
        self,
        due: Sequence[_LookUp],
        blobs: Iterable[_Blob],
        marks: Marks,
        entries: Entries,
    ) -> Iterator[_LookUp]:
        """Return what builds have used later than some of the blobs to check."""
        since = min(one.used_at for one in due)
        chosen = {one.key for one in due}
        blob_entries = [one.entries[0] for one in blobs if len(one.entries) == 1]
        current = {one.store_id for index in marks.indexes for one in index.current}
        indexes = entries.by_id([one for one in current if one is not None])
        for entry in (*blob_entries, *indexes):
            used_at = entry.used_at or entry.last_use_at
            if entry.key in chosen or used_at <= since:
                continue
            if self._spare and self._spare.reserve(1):
                yield _LookUp(entry.key, used_at, entry=entry)

    async def _look_up(self, one: _LookUp, round_: CheckedContents) -> None:
        stops = self._failures_in_a_row >= _MAX_FAILURES
        if stops or self._spare is None or self._spare.is_over:
            self.totals.deferred += one.blob is not None
            return
        try:
            if one.blob:
                self._progress.advance()
                await self._check(one.blob, round_)
                self._failures_in_a_row = 0
            elif one.entry and await self._store.touch(one.key):
                round_.looked_up[one.entry.store_id] = self._clock()
        except BudgetExhaustedError as error:
            self._budget.stop(error.reason)
            self.totals.deferred += one.blob is not None
        except StoreError as error:
            if one.blob:
                self._failures_in_a_row += 1
                self.totals.failures.append(f"{one.key}: {error}")

    async def _check(self, blob: _Blob, round_: CheckedContents) -> None:
        checked = await check_content(self._store, blob.digest)
        if not checked.is_found:
            self._note_hidden(blob, round_)
            return
        entry = blob.entry_in(checked.ref)
        if entry:
            round_.looked_up[entry.store_id] = self._clock()
        if checked.is_readable:
            self._note_readable(blob, entry, round_)
        else:
            self._note_broken(blob, entry, round_)

    def _note_readable(
        self, blob: _Blob, entry: KnownEntry | None, round_: CheckedContents
    ) -> None:
        self.totals.readable += 1
        round_.readable_blobs.add(blob.digest)
        entries = (entry,) if entry else blob.entries
        round_.readable_entries.update(one.store_id for one in entries)

    def _note_hidden(self, blob: _Blob, round_: CheckedContents) -> None:
        """Record that the service does not find a blob, so that it is not checked again soon."""
        self.totals.failures.append(
            f"{BlobKey(blob.digest)}: a look-up did not find it, although it is listed"
        )
        round_.hidden_blobs.add(blob.digest)
        round_.hidden_entries.update(one.store_id for one in blob.entries)

    def _note_broken(self, blob: _Blob, entry: KnownEntry | None, round_: CheckedContents) -> None:
        """Record that a look-up found no content; another entry may still have it."""
        self._broken += not blob.is_suspect
        if entry:
            round_.broken_entries.add(entry.store_id)
        elif blob.entries:
            self.totals.ambiguous.add(blob.digest)
            return
        others = [one for one in blob.entries if one is not entry and not one.content_missing_since]
        if not others:
            round_.broken_blobs.add(blob.digest)

    def _beware_of_an_outage(self, round_: CheckedContents) -> None:
        answered = self.totals.readable + self._broken
        if self._broken < _MIN_OUTAGE or self._broken * 2 <= answered:
            return
        if self._accept_loss:
            found = self.totals.readable
            self.totals.outage = LossAccepted(found, answered, Counted.CONTENTS)
            return
        self.totals.outage = StorageOutage(self._broken, answered)
        round_.broken_entries.clear()
        round_.broken_blobs.clear()


def _grouped(look_ups: Iterable[_LookUp]) -> Iterator[list[_LookUp]]:
    """Sort by last use by builds, and split at long gaps."""
    group: list[_LookUp] = []
    for one in sorted(look_ups, key=lambda one: (one.used_at, one.key)):
        if group and one.used_at - group[0].used_at > _SAME_TIME:
            yield group
            group = []
        group.append(one)
    if group:
        yield group
