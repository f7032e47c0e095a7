"""An index whose content is unknown keeps older blobs for a grace period, because it may need them.
In a ref that the token cannot read, it does not keep blobs that the store would evict tomorrow.
"""

from maintainer.model.decision import DeleteEntry
from maintainer.model.marks import Mark, State
from maintainer.model.reason import OpaqueIndex
from maintainer.policy import retention
from maintainer.policy.context import PlanContext

NAME = "opaque indexes"


def veto(delete: DeleteEntry, marked: Mark, context: PlanContext) -> OpaqueIndex | None:
    """Return the newest opaque index that may need a dangling entry, if there is one.

    The owner of the cache may decide that those in refs that the token cannot read do not count.
    """
    if delete.state is not State.DANGLING or not context.marks.opaque_indexes:
        return None
    entry, grace = marked.entry, context.rules.grace
    unreadable_too = context.rules.protects_unreadable_refs and not retention.ends_soon(
        entry, context
    )
    for one in context.marks.opaque_indexes:
        counts = unreadable_too or one.ref in context.snapshot.access.readable
        if counts and context.now - one.created_at < grace and one.created_at >= entry.created_at:
            return OpaqueIndex(one.key, one.ref, one.created_at + grace)
    return None
