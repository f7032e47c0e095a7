"""Entries that are too many to be told one by one: totals of all, and some of the actions."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from maintainer.cacheconfig import BlobKey, Digest, IndexId
from maintainer.model.decision import Keep, Plan, Swept
from maintainer.model.marks import Mark, State
from maintainer.model.outcome import Deferred, Planned
from maintainer.model.reason import code_of
from maintainer.report.actions import delete_action, keep_action
from maintainer.report.model import ActionReport, ActionTotal, EntryTotal

_LISTED = 1_000
"""So many deletions, and so many entries that are left alone, are told one by one."""
_PENDING = frozenset({"deferred", "planned"})


class FurtherEntries:
    """What a run decides and does part by part, in the order of the parts."""

    def __init__(self) -> None:
        self._states: dict[tuple[State, IndexId | None], EntryTotal] = {}
        self._listed: dict[int, ActionReport] = {}
        """By store id, or by a negative number."""
        self._kept = 0
        self.deletions = 0
        self._unlisted: dict[tuple[str, str], ActionTotal] = {}
        self.gone_blobs: set[Digest] = set()
        """Those that were deleted, of the blobs that are asked for."""

    def plan(self, marks: Iterable[Mark], plan: Plan) -> tuple[ActionReport, ...]:
        """Take in a part; give the actions that are to be written down: every deletion is."""
        for marked in marks:
            self._count(marked.state, marked.index, marked.entry.size, 1)
        deletes = [delete_action(delete, Planned()) for delete in plan.deletes]
        self.deletions += len(deletes)
        for action in deletes:
            if len(self._listed) - self._kept < _LISTED and action.store_id is not None:
                self._listed[action.store_id] = action
            else:
                self._add(action, 1)
        keeps = self.keep(plan.keeps)
        return (*deletes, *keeps)

    def keep(self, keeps: Iterable[Keep]) -> tuple[ActionReport, ...]:
        """Take in what is left alone; give what is told of it."""
        told = []
        for action in map(keep_action, keeps):
            if self._kept < _LISTED:
                self._kept += 1
                number = action.store_id
                self._listed[-1 - self._kept if number is None else number] = action
                told.append(action)
            else:
                self._add(action, 1)
        return tuple(told)

    def sweep(
        self, marks: Iterable[Mark], swept: Sequence[Swept], wanted: Collection[Digest]
    ) -> tuple[ActionReport, ...]:
        """Take in what came of the deletions of a part; give them."""
        states = {marked.entry.store_id: (marked.state, marked.index) for marked in marks}
        done = []
        for one in swept:
            entry = one.delete.entry
            if one.is_gone:
                self._count(*states[entry.store_id], -entry.size, -1)
                if isinstance(entry.parsed, BlobKey) and entry.parsed.digest in wanted:
                    self.gone_blobs.add(entry.parsed.digest)
            action = delete_action(one.delete, one.outcome)
            done.append(action)
            if entry.store_id in self._listed:
                self._listed[entry.store_id] = action
            else:
                self._add(delete_action(one.delete, Planned()), -1)
                self._add(action, 1)
        return tuple(done)

    def actions(self) -> tuple[ActionReport, ...]:
        """Give the actions that are told one by one."""
        return tuple(self._listed.values())

    def unlisted(self) -> tuple[ActionTotal, ...]:
        """Give the totals of the others."""
        return tuple(self._unlisted[key] for key in sorted(self._unlisted))

    @property
    def left(self) -> int:
        """How many deletions have not come to an end."""
        listed = sum(
            isinstance(action.outcome, Deferred | Planned) for action in self._listed.values()
        )
        return listed + sum(t.actions for t in self._unlisted.values() if t.outcome in _PENDING)

    def totals(self, written: Collection[IndexId]) -> Mapping[State, EntryTotal]:
        """Count what exists by state; what held an index that was written anew is superseded."""
        totals: dict[str, EntryTotal] = {}
        for (state, index), some in self._states.items():
            superseded = state is State.NEWEST and index in written
            now = State.SUPERSEDED if superseded else state
            if some.entries:
                count_entry(totals, now, some.size, some.entries)
        return {State(state): some for state, some in totals.items()}

    def _count(self, state: State, index: IndexId | None, size: int, entries: int) -> None:
        key = (state, index if state is State.NEWEST else None)
        known = self._states.get(key, EntryTotal(state.value, 0, 0))
        self._states[key] = EntryTotal(state.value, known.entries + entries, known.size + size)

    def _add(self, action: ActionReport, times: int) -> None:
        key = (action.kind, code_of(action.outcome))
        known = self._unlisted.get(key, ActionTotal(*key, 0, 0))
        size = known.size + times * (action.size or 0)
        self._unlisted[key] = ActionTotal(*key, known.actions + times, size)
        if not self._unlisted[key].actions:
            del self._unlisted[key]


def count_entry(totals: dict[str, EntryTotal], state: State, size: int, entries: int = 1) -> None:
    """Add entries to the total of a state."""
    known = totals.get(state, EntryTotal(state.value, 0, 0))
    totals[state] = EntryTotal(state.value, known.entries + entries, known.size + size)
