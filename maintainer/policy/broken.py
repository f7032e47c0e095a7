"""A blob whose content cannot be downloaded goes at once: a build that finds it fails, or counts on
it and names it again. The indexes that name it and can be rewritten are rewritten first.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.policy.context import PlanContext

NAME = "without content"


def decide(marked: Mark, context: PlanContext) -> DeleteEntry | None:
    """Delete a blob without content, whatever names it."""
    if marked.state is not State.WITHOUT_CONTENT:
        return None
    after = frozenset(context.referrers(marked.entry) & context.writes.keys())
    return DeleteEntry(marked.entry, marked.state, marked.reason, after)
