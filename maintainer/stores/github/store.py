"""The Actions cache of a repository, as a run sees it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from random import Random

import msgspec

from maintainer.cacheconfig import BlobKey, Digest, IndexKey, Ref
from maintainer.concurrency import MAX_CONCURRENT, for_each
from maintainer.errors import BudgetExhaustedError
from maintainer.model.decision import Keep
from maintainer.model.entry import KnownEntry, Listing, StoredEntry, StoreLimits
from maintainer.model.index import ReadGeneration, index_of
from maintainer.model.memory import Memory
from maintainer.model.store import Abilities, StoreFacts
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
from maintainer.stores.github.activity import PeriodicRecheck
from maintainer.stores.github.keyed import ClosedRefs, KeyedService
from maintainer.stores.github.refs import MAX_REFS
from maintainer.stores.github.rest import ASSUMED
from maintainer.stores.github.swap import Writer
from maintainer.stores.github.versions import read_entry, read_listed, search
from maintainer.stores.http.client import UnclearError

_REQUESTS_TO_WRITE = 7
"""Two look-ups, three to write, two to read back."""
_LIMITS = 3
"""The most requests that it takes to learn when GitHub evicts."""


class GitHubStore:
    """A store of entries under keys, written once, listed and evicted by a service."""

    def __init__(self, service: KeyedService) -> None:
        self._service = service
        self._listed: dict[int, StoredEntry] = {}
        self._closed = ClosedRefs({})
        self.name = service.name
        self.access = service.access
        self.requests = service.requests
        self.ignored: Sequence[Keep] = ()
        self.abilities = Abilities(
            lists=service.lists,
            deletes=service.lists,
            reads=service.reads,
            numbered=True,
            noun="service",
            evicted_by="GitHub",
            checks_contents=service.reads,
            max_concurrent_writes=MAX_CONCURRENT,
            requests_to_write=_REQUESTS_TO_WRITE,
            deletions_a_minute=service.deletions_a_minute,
            # GitHub advises against concurrent requests, and its pace leaves no time to save.
            max_concurrent_deletions=1 if service.deletions_a_minute else MAX_CONCURRENT,
        )

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return when GitHub evicts; the quota is not asked for if it is configured.

        Then the retention matters only to blobs that a young index in another ref may need.
        """
        quota = context.settings.quota
        limits = StoreLimits(int(quota)) if quota else ASSUMED
        matters = any(
            entry.ref not in self.access.readable
            and now - entry.created_at < context.settings.grace
            for entry in self._listed.values()
            if isinstance(entry.parsed, IndexKey)
        )
        if quota and not matters:
            return limits
        if not context.budget.spare().reserve(1 if quota else _LIMITS):
            return limits
        if quota:
            return replace(limits, retention=await self._service.retention())
        return await self._service.limits()

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List all entries through the REST API, and remember which may be indexes.

        If entries of closed refs are to be deleted, find out which refs are closed.
        """
        listing = await self._service.list_entries()
        self._listed = {
            entry.id: entry for entry in listing.entries if entry.key[:6].casefold() == "index-"
        }
        if not context.settings.room.closed_refs:
            return replace(listing, state=b"")
        self._closed = await self._find_closed_refs(listing.entries, now, context)
        state = sorted(self._closed.closed.items()), self._closed.notes
        return replace(listing, state=msgspec.msgpack.encode(state))

    async def _find_closed_refs(
        self, entries: Iterable[StoredEntry], now: datetime, context: RunContext
    ) -> ClosedRefs:
        """Find out which of the refs that the token cannot read are closed, the largest first.

        Of many, others come after the largest on each day, by lot, so that each has its turn.
        """
        context.progress.stage("probe: ask which refs are closed")
        sizes: Counter[Ref] = Counter()
        for entry in entries:
            if entry.ref not in self.access.readable:
                sizes[entry.ref] += entry.size
        spare = context.budget.spare()

        async def may_ask() -> bool:
            return await context.budget.allows_rest(1) and spare.reserve(1)

        refs = [ref for ref, _ in sizes.most_common()]
        first, rest = refs[: MAX_REFS // 4], refs[MAX_REFS // 4 :]
        if len(refs) > MAX_REFS:
            Random(now.toordinal()).shuffle(rest)  # noqa: S311 - no secret
        return await self._service.closed_refs([*first, *rest], may_ask)

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Read the new generations that are listed; or search them, if nothing lists."""
        if self.abilities.lists:
            found = await read_listed(self._service, known, self._listed.values(), now, context)
            facts = StoreFacts(closed_refs=self._closed.closed, notes=self._closed.notes)
            return replace(found, facts=facts)
        settings = context.settings
        merged = (settings.merged_scope,) if settings.merged_scope else ()
        found = await search(self._service, known, (*settings.scopes, *merged), now, context)
        return replace(found, facts=StoreFacts(is_searched=True))

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> Existing:
        """Look blobs up, as far as the budget allows; without a runtime token, list once more."""
        if not blobs:
            return Existing(frozenset())
        if not self.abilities.reads:
            again = await self._service.list_entries()
            keys = (entry.parsed for entry in again.entries)
            return Existing(frozenset(k.digest for k in keys if isinstance(k, BlobKey)) & blobs)

        async def exists(digest: Digest) -> bool | None:
            context.progress.advance()
            if context.budget.reserve(1):
                return None
            try:
                return await self.touch(str(BlobKey(digest)))
            except BudgetExhaustedError as error:
                context.budget.stop(error.reason)
                return None

        wanted = sorted(blobs)
        answers = dict(zip(wanted, await for_each(exists, wanted), strict=True))
        return Existing(
            frozenset(digest for digest, found in answers.items() if found),
            frozenset(digest for digest, found in answers.items() if found is None),
        )

    async def check(self, blob: Digest) -> ContentCheck:
        """Look a blob up, and download its first byte."""
        found = await self._service.look_up(str(BlobKey(blob)))
        if found is None:
            return ContentCheck(is_found=False)
        try:
            is_readable = await self._service.has_content(found)
        except UnclearError:
            if self.abilities.deletes:
                raise
            is_readable = False  # Servers of one's own answer so; nothing is deleted there.
        return ContentCheck(is_found=True, is_readable=is_readable, ref=found.ref)

    async def touch(self, key: str) -> bool:
        """Look an entry up."""
        return await self._service.look_up(key) is not None

    async def new_versions(self) -> Sequence[NewVersion]:
        """List the indexes that were created since the entries were listed."""
        new = [
            NewVersion(index, key.generation, entry)
            for entry in await self._service.newest_indexes()
            for index, key in [(index_of(entry.ref, entry.parsed), entry.parsed)]
            if entry.id not in self._listed and index and isinstance(key, IndexKey)
        ]
        return sorted(new, key=lambda one: (one.entry.created_at, one.entry.id))

    async def read(self, version: NewVersion) -> ReadGeneration:
        """Read an index that is listed."""
        return await read_entry(self._service, version.entry, version.index, version.number)

    async def swap(self, changes: Sequence[Change], context: RunContext) -> Sequence[SwapResult]:
        """Write each index as the next generation."""
        writer = Writer(self._service, context)
        return [await writer.write(change) for change in changes]

    def activity(self, since: Since, context: RunContext) -> Recheck:
        """Return a check that lists the newest indexes, and looks up what supersedes others."""
        prefixes = [rule.prefix for rule in context.settings.room.rules]
        keep_alive = context.settings.keep_alive  # A look-up is a use.
        return PeriodicRecheck(
            self._service,
            self._listed,
            prefixes,
            since,
            context.clock,
            looks_up_since=None if context.budget.is_limited else context.clock() - keep_alive,
        )

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete an entry by its id."""
        del context
        return await self._service.delete(entry.store_id)
