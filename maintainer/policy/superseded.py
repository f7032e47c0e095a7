"""A generation is deleted once builds read a newer one, or if this run replaces it. If the run
rewrites its index, the deletion comes after that.
"""

from collections.abc import Set as AbstractSet

from maintainer.cacheconfig import BlobKey, IndexId
from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.model.reason import Replaced
from maintainer.policy.context import PlanContext

NAME = "superseded"


def decide(marked: Mark, context: PlanContext) -> DeleteEntry | None:
    """Delete a generation, or the manifest of a tag, that builds no longer read."""
    if marked.state not in (State.SUPERSEDED, State.NEWEST):
        return None
    indexes = _indexes(marked, context)
    rewritten = frozenset(indexes & context.writes.keys())
    if marked.state is State.SUPERSEDED:
        reason = marked.overdue(context.now)
        return DeleteEntry(marked.entry, State.SUPERSEDED, reason, rewritten)
    if not rewritten or len(rewritten) < len(indexes):
        return None
    is_named = isinstance(marked.entry.parsed, BlobKey)
    return DeleteEntry(marked.entry, State.SUPERSEDED, Replaced(is_named=is_named), rewritten)


def _indexes(marked: Mark, context: PlanContext) -> AbstractSet[IndexId]:
    """Return the indexes that a generation, or the manifest of some tags, belongs to."""
    return context.referrers(marked.entry) or frozenset(filter(None, [marked.index]))
