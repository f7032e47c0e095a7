"""Check a cache, without a change: whether a run finds what it needs."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime

import anyio

from maintainer.budget import Budget
from maintainer.errors import MaintainerError
from maintainer.model.finding import Finding, note, ok, problem
from maintainer.progress import Unwatched
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.base import RunContext
from maintainer.stores.kinds import connect, kind_of


async def diagnose(
    settings: Settings, target: TargetSettings | None, clock: Callable[[], datetime]
) -> AsyncIterator[Finding]:
    """Check the cache of the settings, or of a target; an error is a problem that was found."""
    kind = kind_of(settings.store)
    check = kind.diagnose or _open_and_list
    try:
        async for finding in check(settings, target, clock):
            yield finding
    except MaintainerError as error:
        yield problem(kind.name, str(error))


async def _open_and_list(
    settings: Settings, target: TargetSettings | None, clock: Callable[[], datetime]
) -> AsyncIterator[Finding]:
    async with connect(settings, target).open() as store:
        budget = Budget(store.requests, settings, clock)
        context = RunContext(settings, budget, Unwatched(), clock, anyio.sleep)
        count = sum(1 for _ in (await store.entries(clock(), context)).entries)
        if count:
            yield ok(store.abilities.noun, f"{count:,} entries can be listed")
        else:
            yield note(
                store.abilities.noun,
                "no cache was found there",
                "check the address (prefixes, names, tags), unless no build has exported yet",
            )
        if not store.access.writable:
            refusal = store.access.refusal
            yield problem(store.abilities.noun, refusal.why, refusal.advice)
        elif not store.access.is_certain:
            yield note(
                store.abilities.noun,
                "whether entries may be written and deleted was not tried",
                "a run says what is refused",
            )
