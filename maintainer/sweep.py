"""Sweep: carries out the planned deletions that are still allowed. Runs after the rewrite.

The order is the safety argument: superseded generations are deleted once their replacement was
read back, or is known to be still stored; then blobs, unless a build has looked them up since the
run began, or has written an index that may need them.
Keeping too many entries is safe: the next run plans skipped deletions again.
"""

from maintainer.cacheconfig import Digest, IndexKey
from maintainer.errors import BudgetExhaustedError, ChangedError, StoreError
from maintainer.model.decision import DeleteEntry, Deletion
from maintainer.model.marks import State
from maintainer.model.outcome import AlreadyGone, Deferred, Done, Failed, Outcome, Skipped
from maintainer.model.reason import (
    Changed,
    EarlierFailure,
    IndexNotRewritten,
    Reason,
    ReferencedByNewIndex,
)
from maintainer.stores.base import RunContext, Since, Store


class Sweeper:
    """Deletes entries, unless there is a reason against it.

    The first failed deletion ends the sweep: the store may have a problem.
    """

    def __init__(self, store: Store, since: Since, context: RunContext) -> None:
        self.store = store
        self.recheck = store.activity(since, context)
        self.rewritten = since.rewritten
        self.budget = context.budget
        self.progress = context.progress
        self.protected: frozenset[Digest] = frozenset().union(
            *(one.protected for one in since.rewritten.values())
        )
        self.failed = False

    async def sweep(self, delete: DeleteEntry) -> Deletion:
        """Delete an entry, if that is still allowed; return the result."""
        self.progress.advance()
        return Deletion(delete, await self._sweep(delete))

    async def _sweep(self, delete: DeleteEntry) -> Outcome:
        if self.budget.exhausted:
            return Deferred(self.budget.exhausted)
        if veto := self._why_not(delete):
            return Skipped(veto)
        rechecks = 0
        if self.recheck and not _is_broken(delete):
            rechecks = self.recheck.requests(delete.entry)
        # One look-up for an index; for blobs, requests to the REST API.
        rest = 0 if isinstance(delete.entry.parsed, IndexKey) else rechecks
        if exhausted := self.budget.reserve(rechecks + 1, rest=rest + 1):
            return Deferred(exhausted)
        try:
            return await self._delete(delete)
        except BudgetExhaustedError as error:
            return Deferred(self.budget.stop(error.reason))
        except StoreError as error:
            self.failed = True
            return Failed(str(error))

    async def _delete(self, delete: DeleteEntry) -> Outcome:
        # An entry without content is useless even to builds that have begun to need it.
        reason = None
        if self.recheck and not _is_broken(delete):
            reason = await self.recheck.veto(delete.entry)
        if reason:
            return Skipped(reason)
        try:
            return Done() if await self.store.delete(delete.entry) else AlreadyGone()
        except ChangedError as change:
            return Skipped(Changed(str(change)))

    def _why_not(self, delete: DeleteEntry) -> Reason | None:
        if self.failed:
            return EarlierFailure()
        for index in sorted(delete.after):
            result = self.rewritten.get(index)
            if result is None or not result.done:
                return IndexNotRewritten(str(index), index.ref)
        digest = getattr(delete.entry.parsed, "digest", None)
        if digest in self.protected and not _is_broken(delete):
            return ReferencedByNewIndex()
        return None


def _is_broken(delete: DeleteEntry) -> bool:
    return delete.state is State.WITHOUT_CONTENT
