"""If a run cannot rewrite an index, it keeps the blobs that the index references. It also keeps the
older generations of the index, unless the newest one is up to date.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.model.reason import IndexNotRewritten, Reason, StillReferenced
from maintainer.policy.context import PlanContext

NAME = "index not rewritten"


def veto(delete: DeleteEntry, marked: Mark, context: PlanContext) -> Reason | None:
    """Return the index that still needs the entry, if there is one."""
    if delete.state is State.DANGLING:
        left = sorted(context.referrers(marked.entry) - context.writes.keys())
        return StillReferenced(str(left[0]), left[0].ref) if left else None
    index = marked.index
    if index is None or index in context.writes or index in context.up_to_date:
        return None
    return IndexNotRewritten(str(index), index.ref)
