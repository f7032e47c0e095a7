"""The plan of a run: stored before it is carried out, then read back to execute and report it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    bindparam,
    case,
    func,
    insert,
    select,
    update,
)

from maintainer.cacheconfig import IndexId, Ref, Scope
from maintainer.graph.entries import entry_columns, to_entry
from maintainer.graph.models import (
    ActionRow,
    EntryRow,
    KeepRow,
    RefRow,
    RunRow,
    reason_columns,
)
from maintainer.model.decision import DeleteEntry, Heal, Keep, Plan, RewriteResult, WriteIndex
from maintainer.model.marks import State
from maintainer.model.outcome import Deferred, Kept, Outcome, Planned
from maintainer.model.reason import EarlierFailure, NotHealed, Reason, code_of

_PLANNED = code_of(Planned())
_DEFERRED = code_of(Deferred(EarlierFailure()))
_ORDER = case({"write": 0, "delete": 1}, value=ActionRow.kind)
_KEPT = (KeepRow.subject, KeepRow.ref, KeepRow.store_id, KeepRow.size, KeepRow.facts)


@dataclass(frozen=True, slots=True)
class PlannedDeletion:
    """A deletion as it is stored."""

    position: int
    delete: DeleteEntry


def save_plan(connection: Connection, run: int, plan: Plan) -> None:
    """Store what a part of a plan changes; `save_keeps` stores what all of it keeps.

    Once all parts are stored, `number_actions` puts them in order.
    """
    lowest = select(func.coalesce(func.min(ActionRow.position), 0)).where(ActionRow.run_id == run)
    first = min(0, connection.execute(lowest).scalar_one())
    rows = [*map(_write_row, plan.writes), *map(_delete_row, plan.deletes)]
    _insert(connection, run, first - 1, -1, rows)


def save_keeps(connection: Connection, run: int, keeps: Iterable[Keep]) -> None:
    """Store all that a run keeps: of that, only what the last run has not kept is written."""
    target_id = connection.execute(select(RunRow.target_id).where(RunRow.id == run)).scalar_one()
    known = defaultdict[tuple[Any, ...], list[int]](list)
    still_kept = KeepRow.target_id == target_id, KeepRow.last_run.is_(None)
    for row in connection.execute(select(KeepRow.id, *_KEPT).where(*still_kept)):
        known[tuple(row)[1:]].append(row.id)
    new = []
    for keep in keeps:
        if same := known.get((keep.subject, keep.ref, keep.store_id, keep.size, keep.reason)):
            same.pop()
        else:
            new.append(_keep_row(keep) | {"target_id": target_id, "first_run": run})
    past = [{"row": number} for numbers in known.values() for number in numbers]
    if past:
        connection.execute(_END_KEEP, [row | {"run": run - 1} for row in past])
    if new:
        connection.execute(insert(KeepRow), new)
    connection.execute(update(RunRow).where(RunRow.id == run).values(has_plan=True))


_keep = KeepRow.__table__
_END_KEEP = (
    update(_keep)  # type: ignore[arg-type]
    .where(_keep.c.id == bindparam("row"))
    .values(last_run=bindparam("run"))
)


def number_actions(connection: Connection, run: int) -> None:
    """Put the actions of a plan in the order in which they are carried out."""
    here = ActionRow.run_id == run
    # Positions are negative and fall in the order of insertion.
    order = (_ORDER, ActionRow.rank, EntryRow.created_at, ActionRow.store_id, -ActionRow.position)
    is_ordered = ActionRow.kind == "delete"
    numbered = (
        select(
            ActionRow.id,
            func.row_number()
            .over(
                order_by=(
                    order[0],
                    *(case((is_ordered, column)) for column in order[1:4]),
                    order[4],
                )
            )
            .label("number"),
        )
        .outerjoin(
            EntryRow,
            (EntryRow.store_id == ActionRow.store_id) & (EntryRow.target_id == _target_of(run)),
        )
        .where(here)
        .subquery()
    )
    connection.execute(
        update(ActionRow)
        .where(here, ActionRow.id == numbered.c.id)
        .values(position=numbered.c.number - 1)
        .execution_options(synchronize_session=False)
    )


def _target_of(run: int) -> ColumnElement[int]:
    return select(RunRow.target_id).where(RunRow.id == run).scalar_subquery()


def add_heal(connection: Connection, run: int, heal: Heal) -> int:
    """Store what is decided of an index after the sweep; return its position."""
    highest = select(func.coalesce(func.max(ActionRow.position), -1)).where(ActionRow.run_id == run)
    position = int(connection.execute(highest).scalar_one()) + 1
    if heal.blocked_by:
        reason = NotHealed(heal.key, len(heal.blobs), heal.blocked_by)
        row = _row("keep", heal.key, heal.index.ref, reason, Kept())
    else:
        row = _row("write", heal.key, heal.index.ref, heal.reason, Planned())
    _insert(connection, run, position, 1, [row])
    return position


def load_writes(connection: Connection, run: int) -> dict[tuple[Ref, str], int]:
    """Return the positions of the writes that are planned, by ref and key."""
    rows = connection.execute(
        select(ActionRow.ref, ActionRow.subject, ActionRow.position)
        .where(ActionRow.run_id == run, ActionRow.kind == "write", ActionRow.outcome == _PLANNED)
        .order_by(ActionRow.position)
    )
    return {(Ref(row.ref), row.subject): row.position for row in rows}


def load_deletions(
    connection: Connection, run: int, *, after: int, limit: int
) -> Sequence[PlannedDeletion]:
    """Read the next planned deletions, in order, after the position `after`."""
    rows = connection.execute(
        select(
            ActionRow.position,
            ActionRow.state.label("planned_state"),
            ActionRow.facts.label("planned_reason"),
            ActionRow.after,
            RunRow.started_at,
            *entry_columns(),
        )
        .join(RunRow, RunRow.id == ActionRow.run_id)
        .join(
            EntryRow,
            (EntryRow.target_id == RunRow.target_id) & (EntryRow.store_id == ActionRow.store_id),
        )
        .join(RefRow, RefRow.id == EntryRow.ref_id)
        .where(
            ActionRow.run_id == run,
            ActionRow.kind == "delete",
            ActionRow.outcome == _PLANNED,
            ActionRow.position > after,
        )
        .order_by(ActionRow.position)
        .limit(limit)
    )
    return [PlannedDeletion(row.position, _deletion(row)) for row in rows]


def _deletion(row: Row[Any]) -> DeleteEntry:
    after = msgspec.json.decode(row.after or "[]", type=list[tuple[str, str, bool]])
    return DeleteEntry(
        to_entry(row, row.started_at),
        State(row.planned_state),
        row.planned_reason,
        frozenset(IndexId(Ref(ref), Scope(scope), signed) for ref, scope, signed in after),
    )


def save_outcomes(
    connection: Connection, run: int, outcomes: Iterable[tuple[int, Outcome]]
) -> None:
    """Store the outcomes of some actions, by position."""
    rows = [
        {"at": position, "code": code_of(outcome), "all": outcome} for position, outcome in outcomes
    ]
    if rows:
        table = ActionRow.__table__
        connection.execute(
            update(table)  # type: ignore[arg-type]
            .where(table.c.run_id == run, table.c.position == bindparam("at"))
            .values(outcome=bindparam("code"), outcome_facts=bindparam("all")),
            rows,
        )


def save_written(connection: Connection, run: int, position: int, result: RewriteResult) -> None:
    """Store the outcome of a write: its key may have changed."""
    values: dict[str, object] = _outcome_columns(result.outcome)
    if result.written:
        values["subject"] = str(result.index.key(result.written.number))
        values["size"] = sum(result.sizes)
    connection.execute(
        update(ActionRow)
        .where(ActionRow.run_id == run, ActionRow.position == position)
        .values(values)
    )


def defer_rest(connection: Connection, run: int, reason: Reason) -> None:
    """Store an outcome for all deletions that are still planned: they were not tried."""
    connection.execute(
        update(ActionRow)
        .where(ActionRow.run_id == run, ActionRow.kind == "delete", ActionRow.outcome == _PLANNED)
        .values(_outcome_columns(Deferred(reason)))
    )


def count_deferred(connection: Connection, run: int) -> int:
    """Count the actions of a run that are deferred to the next."""
    left = select(func.count()).where(ActionRow.run_id == run, ActionRow.outcome == _DEFERRED)
    return int(connection.execute(left).scalar_one())


def _insert(
    connection: Connection, run: int, first: int, step: int, rows: Sequence[dict[str, object]]
) -> None:
    if rows:
        numbered = [
            row | {"run_id": run, "position": first + step * number}
            for number, row in enumerate(rows)
        ]
        connection.execute(insert(ActionRow), numbered)


def _outcome_columns(outcome: Outcome) -> dict[str, object]:
    return {"outcome": code_of(outcome), "outcome_facts": outcome}


def _row(kind: str, subject: str, ref: str, reason: Reason, outcome: Outcome) -> dict[str, object]:
    return {
        **reason_columns(reason),
        **_outcome_columns(outcome),
        "kind": kind,
        "subject": subject,
        "ref": ref,
        "store_id": None,
        "size": None,
        "state": None,
        "rank": None,
        "after": None,
    }


def _write_row(write: WriteIndex) -> dict[str, object]:
    return _row("write", str(write.key), write.index.ref, write.reason, Planned())


def _delete_row(delete: DeleteEntry) -> dict[str, object]:
    after = [(index.ref, index.scope, index.signed) for index in sorted(delete.after)]
    row = _row("delete", delete.entry.key, delete.entry.ref, delete.reason, Planned())
    return row | {
        "store_id": delete.entry.store_id,
        "size": delete.entry.size,
        "state": delete.state.value,
        "rank": delete.rank,
        "after": msgspec.json.encode(after).decode() if after else None,
    }


def _keep_row(keep: Keep) -> dict[str, object]:
    return {
        **reason_columns(keep.reason),
        "subject": keep.subject,
        "ref": keep.ref,
        "store_id": keep.store_id,
        "size": keep.size,
    }
