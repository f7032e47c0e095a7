"""Plan: puts the policies in order and collects their decisions. It contains no rule. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from maintainer.model.decision import DeleteEntry, Keep, Plan, Rules, WriteIndex
from maintainer.model.entry import KnownEntry
from maintainer.model.marks import Mark, Marks, State
from maintainer.model.reason import Reason
from maintainer.policy import (
    closed_refs,
    dangling,
    export,
    grace,
    incomplete,
    merging,
    not_rewritten,
    opaque,
    repair,
    superseded,
    tool_rules,
    unread,
    without_content,
)
from maintainer.policy.context import (
    Decider,
    Decision,
    IndexDecider,
    LeaveAlone,
    PlanContext,
    Selector,
    Veto,
)

INDEXES: IndexDecider = merging
"""Decides about indexes, before anything is decided about entries."""

DECIDERS: tuple[Decider, ...] = (
    repair,
    without_content,
    unread,
    superseded,
    dangling,
    closed_refs,
)
"""Decide about entries: the first decision counts."""

TOOLS: Selector = tool_rules
"""Decides about those entries of other tools about which nobody has decided.

An entry without a decision is kept, and is not in the plan.
"""

VETOES: tuple[Veto, ...] = (incomplete, not_rewritten, opaque, grace, export)
"""Veto deletions: the first reason keeps the entry.

`export` comes last: a run waits for an export in progress if nothing else keeps an entry.
"""


def make_plan(marks: Marks, rules: Rules) -> Plan:
    """Return the plan, from the marks, the rules and the time of the snapshot."""
    others = [one.entry for one in marks.marks if one.state is State.FOREIGN]
    return Planner(marks, rules, others).plan(marks.marks)


class Planner:
    """Makes one plan; its entries may come in several batches."""

    def __init__(self, marks: Marks, rules: Rules, others: Iterable[KnownEntry] = ()) -> None:
        """Begin; `others` are all entries of other tools about which there are rules."""
        self._keeps: list[Keep] = []
        self._deletes: list[DeleteEntry] = []
        self._is_deferred = False
        self._context = self._decide_about_indexes(PlanContext.of(marks, rules))
        self._of_tools = TOOLS.select(others, self._context)

    def plan(self, marks: Iterable[Mark]) -> Plan:
        """Return the plan of the next batch; it does not repeat earlier decisions about entries."""
        for marked in marks:
            self._decide(marked)
        context = self._context
        deferred = context.export if self._is_deferred else None
        plan = Plan(
            writes=tuple(context.writes.values()),
            deletes=tuple(sorted(self._deletes, key=_order)),
            keeps=tuple(self._keeps),
            up_to_date=tuple(sorted(context.up_to_date)),
            blocked=context.snapshot.gap or (deferred.reason if deferred else None),
            deferred=deferred,
        )
        self._deletes, self._keeps = [], []
        return plan

    def _decide_about_indexes(self, context: PlanContext) -> PlanContext:
        """Decide about the indexes; return the context with these decisions."""
        writes, up_to_date = {}, set()
        for index in context.marks.indexes:
            decision = INDEXES.decide(index, context)
            if isinstance(decision, WriteIndex):
                writes[index.id] = decision
                continue
            self._keeps.append(decision)
            if decision.is_up_to_date:
                up_to_date.add(index.id)
        return replace(context, writes=writes, up_to_date=up_to_date)

    def _decide(self, marked: Mark) -> None:
        """Decide about an entry."""
        decision = self._first_decision(marked)
        if isinstance(decision, DeleteEntry) and (reason := self._veto(decision, marked)):
            decision = Keep.of(marked.entry, reason)
        if isinstance(decision, DeleteEntry):
            self._deletes.append(decision)
        elif isinstance(decision, Keep):
            self._keeps.append(decision)

    def _first_decision(self, marked: Mark) -> Decision:
        for policy in DECIDERS:
            decision = policy.decide(marked, self._context)
            if decision is not None:
                return decision
        return self._of_tools.get(marked.entry.store_id) or LeaveAlone()

    def _veto(self, delete: DeleteEntry, marked: Mark) -> Reason | None:
        """Return the first reason against a deletion."""
        for policy in VETOES:
            if reason := policy.veto(delete, marked, self._context):
                self._is_deferred |= policy is export
                return reason
        return None


def _order(delete: DeleteEntry) -> tuple[int, datetime, int]:
    return delete.rank, delete.entry.created_at, delete.entry.store_id
