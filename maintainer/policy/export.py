"""While a build exports, no dangling entry is deleted, because the build may rely on it. The run
waits for the export for a while, and then defers the deletion to the next run.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.model.reason import ExportInProgress
from maintainer.policy.context import PlanContext

NAME = "export in progress"


def veto(delete: DeleteEntry, _marked: Mark, context: PlanContext) -> ExportInProgress | None:
    """Return the export in progress, if there is one and the entry is dangling."""
    return context.export.reason if context.export and delete.state is State.DANGLING else None
