"""The store evicts what nobody has used for its retention. What it would evict within a day is not
worth protecting: otherwise an index that is written each day, in a ref that the token cannot read,
would keep forever what it may need.
"""

from datetime import timedelta

from maintainer.model.entry import KnownEntry
from maintainer.policy.context import PlanContext

NAME = "retention"

_A_DAY = timedelta(days=1)


def ends_soon(entry: KnownEntry, context: PlanContext) -> bool:
    """Whether the store evicts an entry within a day, and before half its retention has passed."""
    retention = context.rules.retention
    if retention is None:
        return False
    return context.now - entry.last_use_at >= max(retention - _A_DAY, retention / 2)
