"""What stores do alike that evict nothing, and look blobs up one by one."""

from collections.abc import Awaitable, Callable

from maintainer.cacheconfig import Digest, content_digest
from maintainer.concurrency import for_each
from maintainer.model.entry import StoreLimits
from maintainer.stores.base import Existing, RunContext


def number_of(key: str) -> int:
    """Return the number that identifies an entry, where the store has none of its own."""
    return int(content_digest(key.encode())[7:23], 16) >> 1


def configured_limits(context: RunContext) -> StoreLimits:
    """Return what the settings allow, where the store itself has no limit."""
    quota = context.settings.quota
    return StoreLimits(int(quota) if quota else None)


async def look_up(
    blobs: frozenset[Digest], context: RunContext, exists: Callable[[Digest], Awaitable[bool]]
) -> Existing:
    """Look up which blobs exist, as far as the budget allows. Raises what `exists` raises."""
    found: set[Digest] = set()
    unasked: set[Digest] = set()

    async def look(blob: Digest) -> None:
        if context.budget.reserve(1):
            unasked.add(blob)
        elif await exists(blob):
            found.add(blob)
        context.progress.advance()

    await for_each(look, sorted(blobs))
    return Existing(frozenset(found), frozenset(unasked))
