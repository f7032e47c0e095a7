"""An unreferenced entry is kept for a grace period, because a build may be about to need it again.
The period starts when the entry was last needed.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.model.reason import Grace
from maintainer.policy.context import PlanContext

NAME = "grace period"

_WITH_OTHER_PERIODS = frozenset({State.WITHOUT_CONTENT, State.CLOSED, State.FOREIGN})


def veto(delete: DeleteEntry, marked: Mark, context: PlanContext) -> Grace | None:
    """Return until when an entry is kept, if its grace period is not over."""
    since, grace = context.since(marked), context.rules.grace
    if delete.state in _WITH_OTHER_PERIODS or context.now - since >= grace:
        return None
    return Grace(delete.state.value, since, since + grace)
