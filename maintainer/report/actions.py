"""Actions in reports: decisions, outcomes, and their sentences. Pure."""

from typing import TYPE_CHECKING

from maintainer.model.outcome import Kept, Outcome
from maintainer.model.reason import Reason
from maintainer.report.model import ActionKind, ActionReport
from maintainer.report.reasons import format_outcome, format_reason

if TYPE_CHECKING:
    from maintainer.model.decision import DeleteEntry, Keep  # A report that is read needs neither.


def make_action(
    kind: ActionKind,
    subject: str,
    ref: str,
    reason: Reason,
    outcome: Outcome,
    *,
    store_id: int | None = None,
    size: int | None = None,
) -> ActionReport:
    """Return an action with the sentences for its reason and its outcome."""
    return ActionReport(
        kind=kind,
        subject=subject,
        ref=ref,
        reason=reason,
        sentence=format_reason(reason),
        outcome=outcome,
        outcome_sentence=format_outcome(outcome),
        store_id=store_id,
        size=size,
    )


def delete_action(delete: "DeleteEntry", outcome: Outcome) -> ActionReport:
    """Return the report of a deletion."""
    entry = delete.entry
    return make_action(
        "delete",
        entry.key,
        entry.ref,
        delete.reason,
        outcome,
        store_id=entry.store_id,
        size=entry.size,
    )


def keep_action(keep: "Keep") -> ActionReport:
    """Return the report of a decision to keep something."""
    return make_action(
        "keep",
        keep.subject,
        keep.ref,
        keep.reason,
        Kept(),
        store_id=keep.store_id,
        size=keep.size,
    )
