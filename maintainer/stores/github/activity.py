"""What builds have done since a run began, as far as the list of entries shows it."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from maintainer.cacheconfig import (
    BLOB_PREFIX,
    BlobKey,
    IndexId,
    IndexKey,
    Ref,
    SignatureKey,
)
from maintainer.concurrency import Joint, for_each
from maintainer.errors import BudgetExhaustedError, StoreError, UnreadableError
from maintainer.exports import find_new_export
from maintainer.model import reason as reasons
from maintainer.model.entry import KnownEntry, StoredEntry
from maintainer.model.index import index_of
from maintainer.model.reason import Reason
from maintainer.stores.base import Since
from maintainer.stores.github.keyed import PAGE, KeyedService
from maintainer.stores.github.versions import LOOK_UP_AND_READ, generation_of

_RECHECKS = 2
"""Requests that tell what builds have done since the run began."""
_REF_REQUESTS = 4
"""The most requests that tell whether a ref is still closed, and what was used there."""
_FRESH = timedelta(seconds=30)
"""Answers that are older are requested again."""


@dataclass(frozen=True, slots=True)
class _Tool:
    """The entries of another tool, by the beginning of their keys."""

    prefix: str


_Subject = IndexId | Ref | _Tool
"""What may have changed since the run began."""


class PeriodicRecheck:
    """Checks what was done since the run began; requests are too expensive before each deletion.

    Deletions may be checked concurrently: those that need the same answer send one request.
    """

    def __init__(
        self,
        service: KeyedService,
        listed_indexes: Collection[int],
        prefixes: Sequence[str],
        since: Since,
        clock: Callable[[], datetime],
        *,
        looks_up_since: datetime | None,
    ) -> None:
        """`prefixes` are those of the rules for other tools. The newest generation of each index
        whose newest known one was created since `looks_up_since` is looked up; of none without it.
        """
        self._service = service
        self._prefixes = prefixes
        self._clock = clock
        self._rewritten = since.rewritten
        self._listed_indexes = listed_indexes
        self._accessed_when_listed = since.accessed
        self._accessed: dict[int, datetime] = {}
        """When entries were last accessed, where that was taken into account later."""
        self._uploaded: dict[int, StoredEntry] = {}
        """The blobs that builds have stored since the run began."""
        indexes = since.marks.indexes
        self._newest = {one.id: str(one.newest.key) for one in indexes if one.newest}
        self._highest = _highest_numbers(since)
        self._has_blobs = bool(since.marks.snapshot.live_blobs)
        self._unsure = [
            one.id
            for one in indexes
            if looks_up_since and one.newest and one.newest.created_at >= looks_up_since
            if service.reads and not one.id.signed
        ]
        """The indexes of which it is not known whether the list has shown their newest generation.
        """
        # A generation that cannot be read may need any blob.
        self._ours = {
            (one.index.ref, str(one.index.key(one.number)))
            for outcome_of_write in since.rewritten.values()
            for one in (*outcome_of_write.concurrent, outcome_of_write.written)
            if one and one.config
        }
        self._referenced = [
            (one.index.ref, blob)
            for outcome_of_write in since.rewritten.values()
            for one in outcome_of_write.concurrent
            if one.config
            for blob in one.config.blobs
        ]
        self._veto_of_all: Reason | None = None
        self._used: set[int] = set()
        self._looked_up = frozenset(since.looked_up)
        self._more_pages = 1 + len(self._looked_up) // PAGE if self._looked_up else 0
        """Up to this many pages of the blobs used last may be filled by the run's own look-ups."""
        self._closed_refs = since.marks.snapshot.facts.closed_refs
        self._asked_at: dict[_Subject | None, datetime] = {}
        self._vetoes: dict[_Subject | None, Reason] = {}
        self._questions: Joint[_Subject | None, Reason | None] = Joint()

    def requests(self, entry: KnownEntry) -> int:
        """How many requests it takes to check this one: none, if that was done recently."""
        if entry.ref in self._closed_refs:
            return 0 if self._is_asked(entry.ref) else _REF_REQUESTS
        if entry.parsed is None:
            return 0 if self._is_asked(self._tool_of(entry)) else 1
        if not isinstance(entry.parsed, IndexKey):
            return 0 if self._is_asked(None) else _RECHECKS + self._more_pages
        index = index_of(entry.ref, entry.parsed)
        return 0 if index in self._rewritten or self._is_asked(index) else LOOK_UP_AND_READ

    async def veto(self, entry: KnownEntry) -> Reason | None:
        """Return why an entry must not be deleted, if so.

        Nobody reads what is in a closed ref.
        """
        if entry.ref in self._closed_refs:
            return await self._veto_closed(entry)
        if entry.parsed is None:
            return await self._veto_used(entry)
        if isinstance(entry.parsed, IndexKey):
            index = index_of(entry.ref, entry.parsed)
            return await self._veto_superseded(index) if index else reasons.ForeignKey(entry.ref)
        if not self._is_fresh(None):
            await self._questions.run(None, self._ask_what_was_done)
        if self._veto_of_all is None and entry.store_id in self._used:
            return reasons.LookedUp()
        return self._veto_of_all

    async def _ask_what_was_done(self) -> None:
        """Ask for what the list may lack first: the lists must be as young as they can be."""
        hidden = await _answer(self._find_hidden_index, reasons.BuildsUnknown)
        began = self._clock()
        self._veto_of_all = hidden or await _answer(self._find_activity, reasons.BuildsUnknown)
        self._asked_at[None] = began

    async def _veto_closed(self, entry: KnownEntry) -> Reason | None:
        """Check whether a ref is closed as it was, and nobody has used its entry since the list."""
        ref = entry.ref

        async def ask() -> Reason | None:
            if await self._service.closed_ref(ref) != self._closed_refs[ref]:
                return reasons.RefInUse(ref)
            return await self._find_used("", ref)

        veto = await self._check(ref, ask, lambda error: reasons.RefUnchecked(ref, error))
        return reasons.LookedUp() if entry.store_id in self._used else veto

    async def _find_used(self, prefix: str, ref: Ref | None = None) -> Reason | None:
        """Find what was used since the list was read; return a reason if there may be more."""
        used = self._used_since_listed(await self._service.last_used(prefix, ref=ref))
        self._used |= used
        return reasons.TooManyUsed() if len(used) == PAGE else None

    async def _veto_used(self, entry: KnownEntry) -> Reason | None:
        """Check whether anybody has used another tool's entry since the list was read."""
        tool = self._tool_of(entry)

        async def ask() -> Reason | None:
            return await self._find_used(tool.prefix)

        veto = await self._check(tool, ask, reasons.UseUnchecked)
        return reasons.LookedUp() if entry.store_id in self._used else veto

    def _tool_of(self, entry: KnownEntry) -> _Tool:
        found = (prefix for prefix in self._prefixes if entry.key.startswith(prefix))
        return _Tool(next(found, entry.key))

    def _used_since_listed(self, entries: Sequence[StoredEntry]) -> set[int]:
        """Return those of some entries that were used or stored since the list was read."""
        listed = self._accessed_when_listed([one.id for one in entries])
        return {one.id for one in entries if listed.get(one.id) != one.last_accessed_at}

    async def _check(
        self,
        what: _Subject,
        ask: Callable[[], Awaitable[Reason | None]],
        unchecked: Callable[[str], Reason],
    ) -> Reason | None:
        """Ask what speaks against a deletion, unless nothing did a moment ago.

        An error other than of the budget speaks against it, too. What speaks against one deletion
        speaks against all others of its subject, until the run ends: nothing is half deleted, and
        a server in trouble is not asked again for each entry.
        """

        async def send() -> Reason | None:
            reason = await _answer(ask, unchecked)
            if reason is None:
                self._asked_at[what] = self._clock()
            else:
                self._vetoes[what] = reason
            return reason

        if what in self._vetoes:
            return self._vetoes[what]
        return None if self._is_fresh(what) else await self._questions.run(what, send)

    def _is_asked(self, what: _Subject | None) -> bool:
        """Whether there is an answer that still counts, or a request for one."""
        return what in self._vetoes or self._is_fresh(what) or what in self._questions

    def _is_fresh(self, what: _Subject | None) -> bool:
        asked_at = self._asked_at.get(what)
        return asked_at is not None and self._clock() - asked_at < _FRESH

    async def _veto_superseded(self, index: IndexId) -> Reason | None:
        """Check whether what supersedes it can still be read: if not, builders fall back to it."""
        if index in self._rewritten:
            return None
        newest = self._newest.get(index, "the newest generation")

        async def ask() -> Reason | None:
            found = await self._service.look_up(newest)
            is_read = found and await self._service.has_content(found)
            return None if is_read else reasons.NewestGone(newest)

        return await self._check(index, ask, lambda error: reasons.NewestUnchecked(newest, error))

    async def _find_activity(self) -> Reason | None:
        """Find out what builds have done since the run began; return why no blob may go, if so.

        A build in any ref may name a blob of a ref that it reads, so all new indexes count. Before
        it writes its index it looks up the blobs, and does not upload those that it finds; or it
        has listed them when it began, and looks nothing up. Then a new blob shows that it is there.
        """
        newest = await self._service.newest_indexes()
        if not newest and self._listed_indexes:
            return reasons.BuildsUnknown("the list of indexes is empty, and was not before")
        for entry in newest:
            if not (entry.id in self._listed_indexes or (entry.ref, entry.key) in self._ours):
                return reasons.NewIndex(entry.key, entry.ref)
        if reason := await self._find_uses():
            return reason
        uploads = (
            (blob.ref, blob.parsed.digest, blob.created_at)
            for blob in self._uploaded.values()
            if isinstance(blob.parsed, BlobKey | SignatureKey)
        )
        export = find_new_export(uploads, self._referenced)
        return export.reason if export else None

    async def _find_hidden_index(self) -> Reason | None:
        """Look up the newest generation of each index: a list may lack it. Once is enough."""

        async def newest(index: IndexId) -> str:
            try:
                found = await self._service.look_up_newest(index.prefix)
            except UnreadableError:
                found = None  # Nobody can look it up, so builds do not find it either.
            return found.key if found else ""

        keys = await for_each(newest, self._unsure)
        for index, key in zip(self._unsure, keys, strict=True):
            # Some services ignore the case of keys.
            if (generation_of(index, key) or 0) > self._highest.get(index.prefix.casefold(), 0):
                return reasons.IndexNotListed(key)
        self._unsure = []
        return None

    async def _find_uses(self) -> Reason | None:
        """Record which blobs were used since the run began; return why none may be deleted, if so.

        What the run has looked up itself counts as used, since a build may have been faster. But it
        is no sign that builds have used so much: the list goes on after it.
        """
        shown: dict[int, datetime] = {}
        for page in range(1, 2 + self._more_pages):
            blobs = await self._service.last_used(BLOB_PREFIX, page)
            if not blobs and page == 1 and self._has_blobs:
                return reasons.BuildsUnknown("the list of blobs is empty, and was not before")
            listed = self._accessed_when_listed([one.id for one in blobs])
            known = {**listed, **self._accessed}
            used = {one.id for one in blobs if known.get(one.id) != one.last_accessed_at}
            self._used |= used
            self._uploaded |= {one.id: one for one in blobs if one.id not in listed}
            shown |= {one.id: one.last_accessed_at for one in blobs}
            if not blobs or len(used) < len(blobs):
                self._accessed |= shown
                self._more_pages = 0
                return None
            if used.isdisjoint(self._looked_up):
                break
        return reasons.TooManyUsed()


async def _answer(
    ask: Callable[[], Awaitable[Reason | None]], unchecked: Callable[[str], Reason]
) -> Reason | None:
    """Return what speaks against a deletion: an error does, other than of the budget."""
    try:
        return await ask()
    except BudgetExhaustedError:
        raise
    except StoreError as error:
        return unchecked(str(error))


def _highest_numbers(since: Since) -> Mapping[str, int]:
    """Return the highest known number of each index, by its prefix in lower case."""
    highest: dict[str, int] = {}
    for one in since.marks.indexes:
        result = since.rewritten.get(one.id)
        written = (*result.concurrent, result.written) if result else ()
        numbers = [one.highest, *(each.number for each in written if each)]
        name = one.id.prefix.casefold()
        highest[name] = max(highest.get(name, 0), *numbers)
    return highest
