"""A repair only rewrites indexes. It does not touch entries."""

from maintainer.model.marks import Mark
from maintainer.policy.context import LeaveAlone, PlanContext

NAME = "repair"


def decide(_marked: Mark, context: PlanContext) -> LeaveAlone | None:
    """Do not touch an entry if the run is a repair."""
    return LeaveAlone() if context.rules.repair else None
