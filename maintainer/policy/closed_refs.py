"""Entries of closed pull requests, and of deleted branches and tags, are deleted, because no build
reads them any more. They are kept for an hour after the last use and after the pull request was
closed, because a build that was running may still export.
"""

from maintainer.exports import LONGEST_EXPORT
from maintainer.model.decision import DeleteEntry, Keep
from maintainer.model.marks import Mark, State
from maintainer.model.reason import Grace
from maintainer.policy.context import PlanContext

NAME = "closed refs"


def decide(marked: Mark, context: PlanContext) -> DeleteEntry | Keep | None:
    """Delete an entry whose ref is closed, once no build can be running there."""
    if marked.state is not State.CLOSED:
        return None
    since = context.since(marked)
    until = since + LONGEST_EXPORT
    if context.now < until:
        return Keep.of(marked.entry, Grace(marked.state.value, since, until))
    return DeleteEntry(marked.entry, marked.state, marked.reason)
