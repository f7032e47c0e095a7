"""Writes one generation of an index after all others, and reads it back. Never hides a build's.

The order of the steps is the safety argument: nothing is written before it is known what the newest
generation is, and nothing counts as written before it was read back.
"""

from maintainer.cacheconfig import IndexId, encode, parse_key, why_too_large
from maintainer.errors import AlreadyExistsError, BudgetExhaustedError, StoreError
from maintainer.model import reason as reasons
from maintainer.model.index import ReadGeneration
from maintainer.stores.base import Change, Conflict, Refused, RunContext, Swapped, SwapResult
from maintainer.stores.decoding import read_content
from maintainer.stores.github.keyed import CacheHit, KeyedService
from maintainer.stores.github.versions import generation_of

_POLLS = 5
"""How often a reserved key is looked up while its builder has time to finish it."""
_RESERVED = 10
"""Up to this many reserved numbers are skipped before an index is deferred to the next run."""


class Writer:
    """Writes generations to one service."""

    def __init__(self, service: KeyedService, context: RunContext) -> None:
        self._service = service
        self._context = context

    async def write(self, change: Change) -> SwapResult:
        """Write the next generation of an index, if the newest one is known."""
        first = max(change.number, self._last_reserved(change.index) + 1)
        for number in range(first, first + _RESERVED):
            # Again each time: who had reserved a number may have written it since.
            if conflict := await self._find_newer(change):
                return conflict
            # Some services take a key twice and serve the last, so ask first.
            taken = await self._service.look_up(str(change.index.key(number)))
            if taken is not None:
                return Conflict(await self._read(change, number, taken), is_newest=False)
            try:
                return await self._write(change, number)
            except AlreadyExistsError:
                if taken := await self._wait_for(str(change.index.key(number))):
                    return Conflict(await self._read(change, number, taken), is_newest=False)
                self._note_reserved(change.index, number)
        return Refused(reason=reasons.NumbersReserved(_RESERVED))

    def _last_reserved(self, index: IndexId) -> int:
        """Return the highest number of which a run has found that it stays reserved; 0 if none."""
        name = _name(index)
        found = (one.removeprefix(name) for one in self._context.tried if one.startswith(name))
        return max((int(number) for number in found if number.isdecimal()), default=0)

    def _note_reserved(self, index: IndexId, number: int) -> None:
        """Let later runs begin behind a number whose upload nobody has finished: it may stay so."""
        tried = self._context.tried
        tried.pop(f"{_name(index)}{self._last_reserved(index)}", None)
        tried[f"{_name(index)}{number}"] = self._context.clock()

    async def _find_newer(self, change: Change) -> Conflict | None:
        """Return what builders read, if that is not known."""
        newest = await self._service.look_up_newest(change.index.prefix)
        number = generation_of(change.index, newest.key) if newest else None
        if newest is None or number is None or number in change.known:
            return None
        # Builders get it, even if the highest generation is another one.
        found = await self._read(change, number, newest)
        return Conflict(found, is_newest=number + 1 >= change.number)

    async def _write(self, change: Change, number: int) -> SwapResult:
        key = str(change.index.key(number))
        content = encode(change.stored)
        if parse_key(key) is None:
            return Refused(reason=reasons.NumbersExhausted())
        if too_large := why_too_large(content, self._context.settings.max_index_size):
            return Refused(reason=reasons.TooLarge(too_large, len(content), concurrent=True))
        await self._service.write(key, content)
        try:
            found = await self._service.look_up(key)
            if found is None or await self._service.read(found) != content:
                problem = "it was written, but a look-up finds nothing, or something else"
                return Refused(problem, unverified=key)
        except BudgetExhaustedError as error:
            reason = self._context.budget.stop(error.reason)
            return Refused(reason=reason, unverified=key)
        except StoreError as error:
            return Refused(str(error), unverified=key)
        now = self._context.clock()
        written = read_content(change.index, number, content, now, location=found.location)
        return Swapped(written, {key: len(content)})

    async def _wait_for(self, key: str) -> CacheHit | None:
        """Wait until a builder that has reserved a key writes it; None if it does not.

        A builder that reserved a key and died leaves it locked permanently.
        """
        found = await self._service.look_up(key)
        for _ in range(_POLLS):
            if found is not None:
                break
            wait = self._context.settings.reservation_wait
            await self._context.sleep(wait.total_seconds() / _POLLS)
            found = await self._service.look_up(key)
        return found

    async def _read(self, change: Change, number: int, found: CacheHit) -> ReadGeneration:
        """Read a generation that a build wrote concurrently."""
        content = await self._service.read(found)
        return read_content(
            change.index, number, content, self._context.clock(), location=found.location
        )


def _name(index: IndexId) -> str:
    """Return how the reserved numbers of an index are called among what was tried."""
    return f"reserved {index.ref} {index.prefix}"
