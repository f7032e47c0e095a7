"""A blob or signature that no index needs goes. It goes after the indexes that still name it were
rewritten without it.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.policy.context import PlanContext

NAME = "dangling"


def decide(marked: Mark, context: PlanContext) -> DeleteEntry | None:
    """Delete an entry that nothing needs."""
    if marked.state is not State.DANGLING:
        return None
    after = frozenset(context.referrers(marked.entry) & context.writes.keys())
    return DeleteEntry(marked.entry, State.DANGLING, marked.overdue(context.now), after)
