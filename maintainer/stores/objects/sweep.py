"""Deletes blobs in an object storage, some at a time.

A blob is deleted only if nobody has written it for `Layout.least_grace`, and if neither it nor an
index has changed in a way that needs it, as looked up directly before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from maintainer.cacheconfig import Digest
from maintainer.concurrency import for_each
from maintainer.errors import ChangedError, EntryError, RefusedError, StoreError
from maintainer.model.entry import KnownEntry
from maintainer.sanitize import printable
from maintainer.stores.base import RunContext
from maintainer.stores.batches import Batches
from maintainer.stores.objects.claims import Claims
from maintainer.stores.objects.indexes import Indexes, tag_in
from maintainer.stores.objects.layout import Layout
from maintainer.stores.objects.requests import Object, Objects

BATCH = 100
"""How many blobs are looked up again before they are deleted by one request."""


AHEAD = timedelta(hours=1)
"""If our clock is ahead of the service's by more, grace periods and rules are over too early."""


@dataclass(slots=True)
class _Deletion:
    """A blob to delete, what is there, and why it stays."""

    entry: KnownEntry
    context: RunContext
    found: Object | None = None
    error: StoreError | None = None

    @property
    def result(self) -> bool | StoreError:
        """Whether it was there, or what went wrong."""
        return self.error or self.found is not None


class Deletions:
    """The deletions of a run."""

    def __init__(self, objects: Objects, layout: Layout, claims: Claims, indexes: Indexes) -> None:
        self._objects = objects
        self._layout = layout
        self._claims = claims
        self._indexes = indexes
        self._changed: dict[str, str] = {}
        """The indexes that builds have written since, and the run has not merged in: tags, by key.
        """
        self._protected: set[Digest] = set()
        """The blobs that they reference."""
        self._batches = Batches(self._delete)

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete a blob together with those that wait, if no build needs them by now."""
        return await self._batches.add(_Deletion(entry, context))

    async def _delete(self, batch: Sequence[_Deletion]) -> list[bool | Exception]:
        confirm = batch[0].context.confirm
        try:
            confirm()
            await self._claims.refuse_others()
            await self._look_at(batch)
            found = [one.found for one in batch if one.found and not one.error]
            tags = {one.key: self._tag(one) for one in found}
            # They may have waited for long.
            confirm()
            problems = await self._objects.delete(tags) if tags else {}
            for one in batch:
                one.error = one.error or problems.get(one.entry.key)
        except StoreError as error:
            for one in batch:
                one.error = one.error or error
        return [one.result for one in batch]

    def _tag(self, found: Object) -> str | None:
        """Return the tag that shows whether something has been written since it was looked up.

        What is written anew under its digest has the same tag, where the tag is one of content.
        """
        is_blob = self._layout.digest_of(found.key) is not None
        return None if is_blob and self._layout.touches else found.tag

    async def _look_at(self, batch: Sequence[_Deletion]) -> None:
        """Look at blobs and indexes, last at those that show whether builds use a blob."""
        if self._layout.touches:
            await self._look_again()
        await for_each(self._look_up, batch)
        if not self._layout.touches:
            await self._look_again()
        for one in batch:
            one.error = one.error or (self._veto(one, one.found) if one.found else None)

    async def _look_up(self, deletion: _Deletion) -> None:
        try:
            deletion.found = await self._objects.head(deletion.entry.key)
        except RefusedError as error:
            # Its own encryption may be the reason, so others may be shown and deleted.
            deletion.error = EntryError(str(error))

    async def _look_again(self) -> None:
        """Read the indexes that builds have written since, and the run has not read yet."""
        for seen in await self._indexes.list_changed():
            is_known = seen.tag == self._changed.get(seen.key)
            found = None if is_known else await self._indexes.read_changed(seen)
            if found is None:
                continue
            if found.config is None:
                problem = f"a build has written {printable(seen.key)}, which cannot be read"
                raise ChangedError(problem)
            self._protected |= found.config.blobs
            self._changed[seen.key] = tag_in(found.location or "")

    def _veto(self, deletion: _Deletion, found: Object) -> ChangedError | None:
        """Return why a blob stays, if so."""
        entry, now = deletion.entry, deletion.context.clock()
        if (found.modified_at, found.size) != (entry.created_at, entry.size):
            return ChangedError("a build has used it since the run began")
        if entry.key in self._indexes.ignored:
            return ChangedError("it is no index of BuildKit's")
        if self._layout.digest_of(entry.key) in self._protected:
            return ChangedError("a build has exported since, and needs it")
        if _age(found, now) < self._layout.least_grace:
            return ChangedError("a build may have found it before it exports")
        if found.answered_at and now - found.answered_at > AHEAD:
            return ChangedError("this machine's clock is ahead of the service's: set it")
        return None


def _age(seen: Object, now: datetime) -> timedelta:
    """Return how old an object is, by our clock or that of the service: the earlier one."""
    return min(now, seen.answered_at or now) - seen.modified_at
