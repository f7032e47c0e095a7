"""An entry that the store would evict within a day, because nobody has used it, is not protected.
Otherwise an index that is written every day, in a ref that the token cannot read, would protect
every blob that it may need forever.
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
