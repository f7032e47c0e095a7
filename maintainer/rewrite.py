"""Rewrite: merged indexes replace known ones and are read back. They never hide a build's.

The order of the steps is the safety argument: what a build wrote concurrently is merged in before
anything newer is written, and nothing counts as written before it was read back. Indexes do not
depend on each other, so they may be written concurrently. The sweep starts after the last of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from maintainer.cacheconfig import (
    CacheConfig,
    Digest,
    IndexId,
    Sink,
    loses_links,
    merge,
    prune,
    stamp_of,
)
from maintainer.concurrency import for_each
from maintainer.errors import BudgetExhaustedError, StoreError, UnfinishedError
from maintainer.mark.fitting import fit, omitted_of, takes_results_away
from maintainer.model import reason as reasons
from maintainer.model.decision import RewriteResult, WriteIndex
from maintainer.model.index import ReadGeneration
from maintainer.model.marks import Index, Marks
from maintainer.model.reason import Reason
from maintainer.stores.base import (
    Change,
    Conflict,
    Refused,
    RunContext,
    Store,
    Swapped,
    SwapResult,
)

_ATTEMPTS = 10
"""Up to this many concurrent generations are merged in; then the index is deferred."""


async def rewrite(
    store: Store,
    writes: Sequence[WriteIndex],
    marks: Marks,
    context: RunContext,
    done: Callable[[RewriteResult], None],
    *,
    live: frozenset[Digest] | None = None,
) -> None:
    """Write indexes, and call `done` with each result as soon as it is known; it includes errors.

    `live` are the existing blobs, if some were deleted since the indexes were marked. With a
    limited budget, indexes are written one by one, because a write may need more than it reserved.
    """
    rewriter = _Rewriter(store, marks, context, marks.snapshot.live_blobs if live is None else live)
    known = {index.id: index for index in marks.indexes}
    attempts = [_Attempt(write, known.get(write.index), store.name) for write in writes]

    async def write(group: Sequence[_Attempt]) -> None:
        await rewriter.rewrite(group)
        for one in group:
            done(one.result)

    groups = [attempts] if store.abilities.writes_together else [[one] for one in attempts]
    limit = 1 if context.budget.is_limited else store.abilities.max_concurrent_writes
    await for_each(write, groups, limit=limit)


class _Attempt:
    """An index to write, which changes while builds write."""

    def __init__(self, write: WriteIndex, index: Index | None, cache: str) -> None:
        self.index = write.index
        self.stamp = stamp_of(write.index, cache)
        self.content: CacheConfig = write.content
        self.sink: Sink = write.sink
        self.number: int = write.key.generation
        self.concurrent: list[ReadGeneration] = []
        self.missing: set[Digest] = set()
        self.numbers: set[int] = set()
        if index:
            self.numbers = {one.number for one in index.generations}
            self.numbers |= {one.number for one in index.unread}
        self.ended: RewriteResult | None = None

    @property
    def change(self) -> Change:
        """The current version to write."""
        known = frozenset(self.numbers)
        return Change(self.index, self.number, self.content, self.sink, self.stamp, known)

    @property
    def result(self) -> RewriteResult:
        """The result."""
        return self.ended or RewriteResult(
            self.index,
            None,
            tuple(self.concurrent),
            deferred=reasons.Contended(_ATTEMPTS),
            missing=frozenset(self.missing),
        )

    def end(
        self,
        written: Swapped | None = None,
        *,
        error: str | None = None,
        deferred: Reason | None = None,
        unverified: str | None = None,
    ) -> None:
        """Finish."""
        self.ended = RewriteResult(
            self.index,
            written.written if written else None,
            tuple(self.concurrent),
            error,
            deferred,
            frozenset(self.missing),
            unverified,
            written.entries if written else {},
        )


class _Rewriter:
    """Writes indexes to one store."""

    def __init__(
        self, store: Store, marks: Marks, context: RunContext, live: frozenset[Digest]
    ) -> None:
        self._store = store
        self._context = context
        self._live = set(live)
        self._snapshot = marks.snapshot

    async def rewrite(self, attempts: Iterable[_Attempt]) -> None:
        """Write indexes, all in one step if the store can."""
        pending = list(attempts)
        for attempt in pending:
            if reason := self._context.budget.reserve(self._store.abilities.requests_to_write):
                attempt.end(deferred=reason)
        for _ in range(_ATTEMPTS):
            pending = [one for one in pending if one.ended is None]
            if not pending:
                return
            await self._try(pending)

    async def _try(self, pending: Sequence[_Attempt]) -> None:
        with self._ending(pending):
            changes = [one.change for one in pending]
            self._context.confirm()
            results = await self._store.swap(changes, self._context)
            for attempt, result in zip(pending, results, strict=True):
                # One by one: each swap counts, whatever happens to the others.
                with self._ending([attempt]):
                    await self._absorb(attempt, result)

    @contextmanager
    def _ending(self, attempts: Sequence[_Attempt]) -> Iterator[None]:
        """Finish the attempts that failed."""
        try:
            yield
        except (BudgetExhaustedError, UnfinishedError) as error:
            reason = self._context.budget.stop(error.reason)
            for attempt in attempts:
                attempt.end(deferred=reason)
        except StoreError as error:
            for attempt in attempts:
                attempt.end(error=str(error))

    async def _absorb(self, attempt: _Attempt, result: SwapResult) -> None:
        match result:
            case Swapped():
                attempt.end(result)
            case Conflict():
                await self._merge_in(attempt, result)
            case Refused():
                attempt.end(
                    error=result.problem or None,
                    deferred=result.reason,
                    unverified=result.unverified,
                )

    async def _merge_in(self, attempt: _Attempt, conflict: Conflict) -> None:
        """Merge in what a build wrote concurrently; finish if that is already complete."""
        conflicting = conflict.found
        if attempt.sink is Sink.MERGE and conflicting.sink is not Sink.MERGE:
            key = str(conflicting.index.key(conflicting.number))
            attempt.end(deferred=reasons.UsedByBuilds(key, is_named=conflicting.index.is_named))
            return
        attempt.concurrent.append(conflicting)
        attempt.numbers.add(conflicting.number)
        attempt.number = max(attempt.number, conflicting.number + 1)
        if conflicting.config is None:
            if conflicting.index.is_named:
                attempt.end(deferred=reasons.Exported())
            return
        attempt.missing |= await self._find_missing(conflicting.config.blobs)
        exported = merge([conflicting.config])
        others = [] if self._replaces(attempt.index) else [attempt.content]
        attempt.content = prune(merge([*others, conflicting.config]), self._live)
        says_it_all = attempt.content == exported and conflicting.violation is None
        # Importers can read the export as it is; near the limit, a sink would cost results.
        if (
            conflict.is_newest
            and says_it_all
            and not (self._snapshot.is_read(exported) and loses_links(exported, conflicting.sink))
        ):
            attempt.end()
        else:
            attempt.content = self._fit(attempt.content, exported)

    def _fit(self, merged: CacheConfig, export: CacheConfig) -> CacheConfig:
        """Return what there is room for, beginning with what a build has just exported."""
        exported = prune(export, self._live)
        fitting = fit(self._snapshot, merged, read=exported)
        if omitted_of(merged, fitting) and takes_results_away(self._snapshot, fitting, exported):
            return exported
        return fitting

    def _replaces(self, index: IndexId) -> bool:
        """Whether an export replaces the content of the index."""
        return index.is_named and not self._context.settings.remember_exports

    async def _find_missing(self, blobs: Iterable[Digest]) -> set[Digest]:
        """Check the blobs that the probe did not find again; return those still missing."""
        missing = set(blobs) - self._live
        asked = await self._store.existing(
            frozenset(missing - self._snapshot.broken_blobs), self._context
        )
        if asked.unasked:
            raise BudgetExhaustedError(self._context.budget.exhausted or reasons.DeadlinePassed())
        self._live |= asked.found
        return missing - self._live
