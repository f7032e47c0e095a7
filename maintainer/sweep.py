"""Sweep: deletes what a plan says, and only what still holds. Runs after the rewrite.

The order is the safety argument: superseded generations go once what replaces them was read back;
then blobs, unless a build has meanwhile looked them up, or written an index that may need them.
Keeping too many entries cannot damage anything: what is skipped here, the next run plans again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from maintainer.budget import Budget
from maintainer.cacheconfig import Digest, IndexId, IndexKey
from maintainer.errors import StoreError, UsedUpError
from maintainer.plan import DeleteEntry
from maintainer.progress import Progress
from maintainer.rewrite import Rewritten
from maintainer.stores import Store

_RECHECKS = 2
"""Requests that tell what builds have done since the run began."""

DONE = "done"
GONE = "gone already"
_FAILED = "failed: "


@dataclass(frozen=True, slots=True)
class Swept:
    """What came of one entry that was to be deleted."""

    delete: DeleteEntry
    outcome: str
    """`done`, `gone already`, `skipped: …`, `left: …` or `failed: …`."""

    @property
    def is_gone(self) -> bool:
        """Whether the entry exists no more."""
        return self.outcome in (DONE, GONE)

    @property
    def failure(self) -> str | None:
        """Why the entry could not be deleted, if it was tried."""
        return self.outcome.removeprefix(_FAILED) if self.outcome.startswith(_FAILED) else None


async def sweep(
    store: Store,
    deletes: Sequence[DeleteEntry],
    rewritten: Mapping[IndexId, Rewritten],
    known_entries: Mapping[int, datetime],
    *,
    budget: Budget,
    progress: Progress,
) -> AsyncIterator[Swept]:
    """Delete entries, in order; tell what came of each as soon as it is known.

    `known_entries` are the ids that the run has seen, and when each was last used. The first
    deletion that fails ends the sweep: a store that is in trouble is left alone.
    """
    progress.stage("sweep", len(deletes))
    sweeper = _Sweeper(store, rewritten, known_entries, budget)
    for delete in deletes:
        progress.advance()
        yield Swept(delete, await sweeper.sweep(delete))


class _Sweeper:
    def __init__(
        self,
        store: Store,
        rewritten: Mapping[IndexId, Rewritten],
        known_entries: Mapping[int, datetime],
        budget: Budget,
    ) -> None:
        self.store = store
        self.rewritten = rewritten
        self.known_entries = known_entries
        self.budget = budget
        self.protected: frozenset[Digest] = frozenset().union(
            *(one.protected for one in rewritten.values())
        )
        self.why_no_blobs: str | None = None
        self.used: set[int] = set()
        self.asked = False
        self.failed = False

    async def sweep(self, delete: DeleteEntry) -> str:
        """Delete one entry, if it may still go; the outcome."""
        if self.budget.used_up:
            return f"left: {self.budget.used_up}"
        if reason := self._why_not(delete):
            return f"skipped: {reason}"
        rechecks = self._rechecks(delete)
        if reason := self.budget.take(rechecks + 1, rest=rechecks + 1):
            return f"left: {reason}"
        try:
            return await self._delete(delete)
        except UsedUpError as error:
            return f"left: {self.budget.stop(str(error))}"
        except StoreError as error:
            self.failed = True
            return f"{_FAILED}{error}"

    async def _delete(self, delete: DeleteEntry) -> str:
        if not isinstance(delete.entry.parsed, IndexKey):
            if self._rechecks(delete):
                self.why_no_blobs = await self._what_was_done_meanwhile()
                self.asked = True
            if self.why_no_blobs:
                return f"skipped: {self.why_no_blobs}"
            if delete.entry.store_id in self.used:
                return "skipped: somebody has looked it up meanwhile"
        return DONE if await self.store.delete(delete.entry.store_id) else GONE

    def _rechecks(self, delete: DeleteEntry) -> int:
        """Tell how many requests it takes to ask what was done meanwhile: once, for blobs."""
        return 0 if self.asked or isinstance(delete.entry.parsed, IndexKey) else _RECHECKS

    def _why_not(self, delete: DeleteEntry) -> str | None:
        if self.failed:
            return "an earlier deletion failed"
        for index in sorted(delete.after):
            if not self.rewritten[index].done:
                return f"{index} was not rewritten"
        if getattr(delete.entry.parsed, "digest", None) in self.protected:
            return "a build has written an index meanwhile that names it"
        return None

    async def _what_was_done_meanwhile(self) -> str | None:
        """Ask what builds have done since the run began; tell why no blob may go, if so.

        A build in any ref may name a blob of a ref that it reads, so all new indexes count. Before
        it writes its index it looks up the blobs, and does not upload those that it finds.
        """
        ours = {
            (one.index.ref, str(one.index.key(one.number)))
            for came_of_it in self.rewritten.values()
            for one in (*came_of_it.met, came_of_it.written)
            if one
        }
        try:
            for entry in await self.store.newest_indexes():
                if entry.id not in self.known_entries and (entry.ref, entry.key) not in ours:
                    return f"{entry.key} was written meanwhile and may need it"
            blobs = await self.store.last_used_blobs()
        except UsedUpError:
            raise
        except StoreError as error:
            return f"what builds have done meanwhile could not be asked ({error})"
        known = self.known_entries
        self.used = {blob.id for blob in blobs if known.get(blob.id) != blob.last_accessed_at}
        if blobs and len(self.used) == len(blobs):
            return "so many blobs were used meanwhile that it may be one of them"
        return None
