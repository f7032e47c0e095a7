"""A repair rewrites indexes and nothing else. It leaves every entry alone."""

from maintainer.model.marks import Mark
from maintainer.policy.context import LeaveAlone, PlanContext

NAME = "repair"


def decide(_marked: Mark, context: PlanContext) -> LeaveAlone | None:
    """Leave an entry alone if the run is a repair."""
    return LeaveAlone() if context.rules.repair else None
