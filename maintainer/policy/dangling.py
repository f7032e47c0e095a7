"""A blob or signature that no index needs is deleted. The indexes that still reference it
are rewritten without it first.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.policy.context import PlanContext

NAME = "dangling"


def decide(marked: Mark, context: PlanContext) -> DeleteEntry | None:
    """Delete an unreferenced entry."""
    if marked.state is not State.DANGLING:
        return None
    after = frozenset(context.referrers(marked.entry) & context.writes.keys())
    return DeleteEntry(marked.entry, State.DANGLING, marked.overdue(context.now), after)
