"""Sweep: deletes what a plan says, and only what still holds. Runs after the rewrite.

The order is the safety argument: superseded generations go once what replaces them was read back;
then blobs, unless a build has written an index meanwhile that may need them. Keeping too many
entries cannot damage anything: what is skipped here, the next run plans again.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass

from maintainer.cacheconfig import Digest, IndexId, IndexKey
from maintainer.errors import StoreError
from maintainer.plan import DeleteEntry
from maintainer.progress import Progress
from maintainer.rewrite import Rewritten
from maintainer.stores import Store

DONE = "done"
GONE = "gone already"
_FAILED = "failed: "


@dataclass(frozen=True, slots=True)
class Swept:
    """What came of one entry that was to be deleted."""

    delete: DeleteEntry
    outcome: str
    """`done`, `gone already`, `skipped: …` or `failed: …`."""

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
    known_entries: frozenset[int],
    progress: Progress,
) -> AsyncIterator[Swept]:
    """Delete entries, in order; tell what came of each as soon as it is known.

    `known_entries` are the ids that the run has seen. The first deletion that fails ends the sweep:
    a store that is in trouble is left alone.
    """
    progress.stage("sweep", len(deletes))
    protected: frozenset[Digest] = frozenset().union(*(o.protected for o in rewritten.values()))
    meanwhile: str | None = None
    asked = trouble = False
    for delete in deletes:
        progress.advance()
        is_blob = not isinstance(delete.entry.parsed, IndexKey)
        if is_blob and not asked:
            asked = True
            meanwhile = await _written_meanwhile(store, rewritten, known_entries)
        why_not = _why_not(delete, rewritten, protected, meanwhile if is_blob else None)
        if trouble:
            why_not = "an earlier deletion failed"
        outcome = f"skipped: {why_not}" if why_not else await _delete(store, delete)
        swept = Swept(delete, outcome)
        trouble = trouble or swept.failure is not None
        yield swept


async def _delete(store: Store, delete: DeleteEntry) -> str:
    try:
        return DONE if await store.delete(delete.entry.store_id) else GONE
    except StoreError as error:
        return f"{_FAILED}{error}"


def _why_not(
    delete: DeleteEntry,
    rewritten: Mapping[IndexId, Rewritten],
    protected: frozenset[Digest],
    meanwhile: str | None,
) -> str | None:
    for index in sorted(delete.after):
        if not rewritten[index].done:
            return f"{index} was not rewritten"
    if getattr(delete.entry.parsed, "digest", None) in protected:
        return "a build has written an index meanwhile that names it"
    return meanwhile


async def _written_meanwhile(
    store: Store, rewritten: Mapping[IndexId, Rewritten], known_entries: frozenset[int]
) -> str | None:
    """Ask which indexes are new since the run began; tell why no blob may go, if so."""
    ours = set(_keys(rewritten.values()))
    try:
        for ref in sorted(store.access.readable):
            for entry in await store.newest_indexes(ref):
                if entry.id not in known_entries and entry.key not in ours:
                    return f"{entry.key} was written meanwhile and may need it"
    except StoreError as error:
        return f"whether a build has written an index meanwhile could not be asked ({error})"
    return None


def _keys(rewritten: Iterable[Rewritten]) -> Iterable[str]:
    for one in rewritten:
        for generation in (*one.met, *((one.written,) if one.written else ())):
            yield str(generation.index.key(generation.number))
