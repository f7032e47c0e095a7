"""Sweep: carries out the planned deletions that are still allowed. Runs after the rewrite.

The order is the safety argument: superseded generations are deleted once their replacement was
read back, or is known to be still stored; then blobs, unless a build has looked them up since the
run began, or has written an index that may need them.
Only entries of the same rank are deleted concurrently: their order does not matter. Each one is
checked directly before its own deletion.
Keeping too many entries is safe: the next run plans skipped deletions again.
"""

from collections import deque
from collections.abc import Mapping
from itertools import groupby

from maintainer.cacheconfig import Digest, IndexId
from maintainer.concurrency import for_each
from maintainer.contents import check_content
from maintainer.errors import (
    BudgetExhaustedError,
    ChangedError,
    EntryError,
    RefusedError,
    StoreError,
)
from maintainer.model.checks import CheckedContents
from maintainer.model.decision import DeleteEntry, Deletion, RewriteResult
from maintainer.model.entry import KnownEntry
from maintainer.model.marks import State
from maintainer.model.outcome import AlreadyGone, Deferred, Done, Failed, Outcome, Refused, Skipped
from maintainer.model.reason import (
    Changed,
    EarlierFailure,
    IndexNotRewritten,
    Reason,
    ReferencedByNewIndex,
)
from maintainer.stores.base import REQUESTS_TO_CHECK, Recheck, RunContext, Since, Store

_ALONE = 3
"""How many entries are refused alone before others of their rank are tried concurrently."""
_WITHOUT_REST = frozenset({State.SUPERSEDED, State.WITHOUT_CONTENT})


class Sweeper:
    """Deletes entries, unless there is a reason against it.

    The first failed deletion ends the sweep: the store may have a problem. Concurrent deletions
    are completed. If only the one entry is refused, the sweep goes on; but not if that is so of
    the first ones, where each costs requests (`Abilities.max_refusals`).
    """

    def __init__(self, store: Store, since: Since, context: RunContext) -> None:
        self.store = store
        self.recheck = store.activity(since, context)
        self.rewritten = since.rewritten
        self.looked_up = since.looked_up
        self.budget = context.budget
        self.progress = context.progress
        self.context = context
        self.protected: frozenset[Digest] = frozenset().union(
            *(one.protected for one in since.rewritten.values())
        )
        self.written = frozenset(
            (one.index.ref, key) for one in since.rewritten.values() for key in one.entries
        )
        self.failed = False
        self._refusals = 0
        self._has_deleted = False
        self.contents = _ContentRecheck(store, context)

    async def sweep(self, planned: Mapping[int, DeleteEntry], results: dict[int, Deletion]) -> None:
        """Delete entries, if that is still allowed, in the order of their positions in the plan.

        The result of each deletion is added as soon as it is known, however the sweep ends. A rank
        starts when the one before it is done. In each rank, deletions are concurrent only after one
        has succeeded, or some are refused alone: a store that refuses all of them gets one request.
        """

        async def sweep(position: int) -> None:
            self.progress.advance()
            delete = planned[position]
            results[position] = Deletion(delete, await self._sweep(delete))

        for _, rank in groupby(sorted(planned), key=lambda position: planned[position].rank):
            positions = deque(rank)
            refused = 0
            while positions and refused < _ALONE:
                first = positions.popleft()
                await sweep(first)
                if results[first].is_gone:
                    break
                refused += isinstance(results[first].outcome, Refused)
            await for_each(sweep, positions, limit=self._limit)

    @property
    def _limit(self) -> int:
        """How many deletions may be concurrent: only one if responses report a rate limit."""
        is_limited = self.store.requests.rate_limit_remaining is not None
        return 1 if is_limited else self.store.abilities.max_concurrent_deletions

    async def _sweep(self, delete: DeleteEntry) -> Outcome:
        if self.budget.exhausted:
            return Deferred(self.budget.exhausted)
        if veto := self._find_veto(delete):
            return Skipped(veto)
        recheck = self._recheck_of(delete)
        rechecks = recheck.requests(delete.entry) if recheck else 0
        # None to the REST API for a superseded index, or for content; for all others, all are.
        rest = 0 if delete.state in _WITHOUT_REST else rechecks
        if exhausted := await self.budget.reserve_rest(rechecks + 1, rest + 1):
            return Deferred(exhausted)
        try:
            return await self._delete(delete)
        except BudgetExhaustedError as error:
            return Deferred(self.budget.stop(error.reason))
        except StoreError as error:
            return self._note_failure(error)

    def _note_failure(self, error: StoreError) -> Refused | Failed:
        """Return what an error means, and note whether it ends the sweep."""
        if not isinstance(error, RefusedError):
            self.failed = True
            return Failed(str(error))
        self.failed = self.failed or self._is_refusal_of_all(error)
        return Refused(str(error))

    def _is_refusal_of_all(self, error: RefusedError) -> bool:
        """Whether the store seems to refuse all deletions, and not only this one."""
        self._refusals += 1
        limit = self.store.abilities.max_refusals
        are_many = limit is not None and self._refusals >= limit and not self._has_deleted
        return are_many or not isinstance(error, EntryError)

    async def _delete(self, delete: DeleteEntry) -> Outcome:
        recheck = self._recheck_of(delete)
        reason = await recheck.veto(delete.entry) if recheck else None
        # Another deletion may have failed while this one was checked.
        if reason := reason or self._find_veto(delete):
            return Skipped(reason)
        self.context.confirm()
        try:
            was_there = await self.store.delete(delete.entry, self.context)
        except ChangedError as change:
            return Skipped(Changed(str(change)))
        self._has_deleted = self._has_deleted or was_there
        return Done() if was_there else AlreadyGone()

    def _recheck_of(self, delete: DeleteEntry) -> Recheck | None:
        """Return what checks an entry again before its deletion, if something does.

        One without content is useless even to builds that have begun to need it. But if an earlier
        run found that, and this one has not looked, its content may be there again.
        """
        if not _is_broken(delete):
            return self.recheck
        has_looked = delete.entry.store_id in self.looked_up
        return None if has_looked or not self.store.abilities.checks_contents else self.contents

    def _find_veto(self, delete: DeleteEntry) -> Reason | None:
        if self.failed:
            return EarlierFailure()
        for index in sorted(delete.after):
            result = self.rewritten.get(index)
            if result is None or not result.done or _may_lead_to_the_same(index, result):
                return IndexNotRewritten(str(index), index.ref)
        digest = getattr(delete.entry.parsed, "digest", None)
        if digest in self.protected and not _is_broken(delete):
            return ReferencedByNewIndex()
        if (delete.entry.ref, delete.entry.key) in self.written:
            # A killed run had left the same, and nothing referenced it then.
            return Changed("this run has just written it")
        return None


class _ContentRecheck:
    """Looks whether an entry has content by now: the storage may have had an outage."""

    def __init__(self, store: Store, context: RunContext) -> None:
        self.checked = CheckedContents()
        """What that has shown."""
        self._store = store
        self._clock = context.clock

    def requests(self, entry: KnownEntry) -> int:
        """Return how many requests it takes: it is asked for twice, unless it is there again."""
        del entry
        return 2 * REQUESTS_TO_CHECK

    async def veto(self, entry: KnownEntry) -> Changed | None:
        """Return why the entry must not be deleted, if so. Raises BudgetExhaustedError."""
        digest = getattr(entry.parsed, "digest", None)
        if digest is None:
            return None
        try:
            found = await check_content(self._store, digest)
        except BudgetExhaustedError:
            raise
        except StoreError as error:
            return Changed(f"its content may be there again: {error}")
        if not found.is_found or found.ref not in (None, entry.ref):
            return None
        self.checked.looked_up[entry.store_id] = self._clock()
        if not found.is_readable:
            return None
        self.checked.readable_entries.add(entry.store_id)
        self.checked.readable_blobs.add(digest)
        return Changed("its content is there again")


def _may_lead_to_the_same(index: IndexId, result: RewriteResult) -> bool:
    """Whether a build's export took the place of the write: maybe with the manifest of before."""
    return index.is_named and result.written is None


def _is_broken(delete: DeleteEntry) -> bool:
    return delete.state is State.WITHOUT_CONTENT
