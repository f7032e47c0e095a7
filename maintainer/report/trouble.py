"""What is wrong with a target, in words."""

from datetime import datetime

from maintainer.graph.schedule import TargetStatus, Trouble
from maintainer.report.words import format_count


def format_trouble(status: TargetStatus, now: datetime) -> str | None:
    """Return what is wrong with a target, if anything."""
    match status.trouble(now):
        case Trouble.FAILED if status.failures > 1:
            failed = f"{format_count(status.failures, 'attempt')} in a row failed"
            return f"{failed}, the last one because: {status.problem}"
        case Trouble.FAILED:
            return f"the last attempt failed: {status.problem}"
        case Trouble.NOT_RUN:
            return "it has not run yet"
        case Trouble.NEVER_DONE:
            return "no run has succeeded yet"
        case Trouble.OVERDUE:
            return f"its run is overdue since {status.due_at:%Y-%m-%d %H:%M:%S} UTC"
        case None:
            return None
