"""A blob whose content cannot be downloaded is deleted at once: a build that finds it fails, or
references it again. The indexes that reference it are rewritten first, if possible.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.policy.context import PlanContext

NAME = "without content"


def decide(marked: Mark, context: PlanContext) -> DeleteEntry | None:
    """Delete a blob without content, even if indexes reference it."""
    if marked.state is not State.WITHOUT_CONTENT:
        return None
    after = frozenset(context.referrers(marked.entry) & context.writes.keys())
    return DeleteEntry(marked.entry, marked.state, marked.reason, after)
