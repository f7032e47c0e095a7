"""A generation that could not be read this time is kept. A later run reads it and decides."""

from maintainer.model.decision import Keep
from maintainer.model.marks import Mark, State
from maintainer.policy.context import PlanContext

NAME = "unread"


def decide(marked: Mark, _context: PlanContext) -> Keep | None:
    """Keep a generation that could not be read."""
    if marked.state is not State.UNREAD:
        return None
    return Keep.of(marked.entry, marked.reason)
