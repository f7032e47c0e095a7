"""If an index could not be read, or the list of entries is incomplete, no dangling entry is
deleted, because an index that the run has not seen may need it. A later run that sees everything
decides.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.model.reason import Reason
from maintainer.policy.context import PlanContext

NAME = "incomplete view"


def veto(delete: DeleteEntry, _marked: Mark, context: PlanContext) -> Reason | None:
    """Return what the run has not seen, if the entry is dangling."""
    return context.snapshot.gap if delete.state is State.DANGLING else None
