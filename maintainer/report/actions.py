"""Actions in reports: decisions, outcomes, and their sentences. Pure."""

from maintainer.model.outcome import Outcome
from maintainer.model.reason import Reason
from maintainer.report.model import ActionKind, ActionReport
from maintainer.report.reasons import format_outcome, format_reason


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
