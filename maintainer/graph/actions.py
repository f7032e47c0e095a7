"""The plan of a run: stored before anything is done, read back to be carried out, and to report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, func, insert, select, update

from maintainer.cacheconfig import IndexId, Ref, Scope
from maintainer.graph.entries import entry_columns, to_entry
from maintainer.graph.models import ActionRow, EntryRow, RefRow, RunRow
from maintainer.model.decision import DeleteEntry, Heal, Keep, Plan, Rewritten, WriteIndex
from maintainer.model.marks import State
from maintainer.report.model import ActionReport, ActionTotal

PLANNED = "planned"
KEPT = "kept"

LISTED = 5_000
"""So many deletions, and so many entries that are kept, are listed one by one."""
_ORDER = case({"write": 0, "delete": 1, "keep": 2}, value=ActionRow.kind)


@dataclass(frozen=True, slots=True)
class PlannedDeletion:
    """A deletion as it is stored."""

    position: int
    delete: DeleteEntry


def save_plan(connection: Connection, run: int, plan: Plan) -> None:
    """Store a part of a plan. Once all parts are stored, `number_actions` puts them in order."""
    lowest = select(func.coalesce(func.min(ActionRow.position), 0)).where(ActionRow.run_id == run)
    first = min(0, connection.execute(lowest).scalar_one())
    rows = [
        *map(_write_row, plan.writes),
        *map(_delete_row, plan.deletes),
        *map(_keep_row, plan.keeps),
    ]
    _insert(connection, run, first - 1, -1, rows)


def number_actions(connection: Connection, run: int) -> None:
    """Number the actions of a plan in the order in which they are carried out."""
    here = ActionRow.run_id == run
    # What is stored one after the other has negative positions that fall.
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
    row = _row("write" if not heal.why_not else "keep", heal.key, heal.index.ref)
    reason = f"{heal.reason}; {heal.why_not}" if heal.why_not else heal.reason
    row |= {"reason": reason, "outcome": KEPT if heal.why_not else PLANNED}
    _insert(connection, run, position, 1, [row])
    return position


def load_writes(connection: Connection, run: int) -> dict[tuple[Ref, str], int]:
    """Return the positions of the writes that are planned, by ref and key."""
    rows = connection.execute(
        select(ActionRow.ref, ActionRow.subject, ActionRow.position)
        .where(ActionRow.run_id == run, ActionRow.kind == "write", ActionRow.outcome == PLANNED)
        .order_by(ActionRow.position)
    )
    return {(Ref(row.ref), row.subject): row.position for row in rows}


def load_deletions(
    connection: Connection, run: int, *, after: int, limit: int
) -> Sequence[PlannedDeletion]:
    """Read the next deletions that are planned, in order, from behind the position `after`."""
    rows = connection.execute(
        select(
            ActionRow.position,
            ActionRow.state.label("planned_state"),
            ActionRow.reason.label("planned_reason"),
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
            ActionRow.outcome == PLANNED,
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


def save_outcomes(connection: Connection, run: int, outcomes: Iterable[tuple[int, str]]) -> None:
    """Store what came of some actions, by position."""
    rows = [{"at": position, "what": outcome} for position, outcome in outcomes]
    if rows:
        table = ActionRow.__table__
        connection.execute(
            update(table)  # type: ignore[arg-type]
            .where(table.c.run_id == run, table.c.position == bindparam("at"))
            .values(outcome=bindparam("what")),
            rows,
        )


def save_written(
    connection: Connection, run: int, position: int, result: Rewritten, outcome: str
) -> None:
    """Store what came of an index that was to be written: its key may have become another."""
    values: dict[str, object] = {"outcome": outcome}
    if result.written:
        values["subject"] = str(result.index.key(result.written.number))
        values["size"] = sum(result.sizes)
    connection.execute(
        update(ActionRow)
        .where(ActionRow.run_id == run, ActionRow.position == position)
        .values(values)
    )


def defer_rest(connection: Connection, run: int, outcome: str) -> None:
    """Store what came of all deletions that are still planned: they were not tried."""
    connection.execute(
        update(ActionRow)
        .where(ActionRow.run_id == run, ActionRow.kind == "delete", ActionRow.outcome == PLANNED)
        .values(outcome=outcome)
    )


def count_deferred(connection: Connection, run: int) -> int:
    """Count the actions of a run that are left for the next."""
    left = select(func.count()).where(ActionRow.run_id == run, ActionRow.outcome.like("left%"))
    return int(connection.execute(left).scalar_one())


def load_actions(connection: Connection, run: int) -> tuple[ActionReport, ...]:
    """Return the actions of a run, in order: of many deletions the first ones."""
    number = func.row_number().over(partition_by=ActionRow.kind, order_by=ActionRow.position)
    numbered = (
        select(ActionRow.id, number.label("number")).where(ActionRow.run_id == run).subquery()
    )
    rows = connection.execute(
        select(
            ActionRow.kind,
            ActionRow.subject,
            ActionRow.ref,
            ActionRow.reason,
            ActionRow.outcome,
            ActionRow.store_id,
            ActionRow.size,
        )
        .join(numbered, numbered.c.id == ActionRow.id)
        .where((ActionRow.kind != "delete") | (numbered.c.number <= LISTED))
        .order_by(ActionRow.position)
    )
    return tuple(ActionReport(*row) for row in rows)


def count_unlisted(connection: Connection, run: int) -> tuple[ActionTotal, ...]:
    """Return the totals of the deletions that `load_actions` leaves out, by outcome."""
    rest = (
        select(ActionRow.outcome, ActionRow.size)
        .where(ActionRow.run_id == run, ActionRow.kind == "delete")
        .order_by(ActionRow.position)
        .offset(LISTED)
        .subquery()
    )
    rows = connection.execute(
        select(rest.c.outcome, func.count(), func.coalesce(func.sum(rest.c.size), 0))
        .group_by(rest.c.outcome)
        .order_by(rest.c.outcome)
    )
    totals: dict[str, ActionTotal] = {}
    for outcome, actions, size in rows:
        word = "gone" if outcome == "gone already" else outcome.partition(":")[0]
        known = totals.get(word, ActionTotal("delete", word, 0, 0))
        totals[word] = ActionTotal("delete", word, known.actions + actions, known.size + size)
    return tuple(totals[word] for word in sorted(totals))


def _insert(
    connection: Connection, run: int, first: int, step: int, rows: Sequence[dict[str, object]]
) -> None:
    if rows:
        numbered = [
            row | {"run_id": run, "position": first + step * number}
            for number, row in enumerate(rows)
        ]
        connection.execute(insert(ActionRow), numbered)


def _row(kind: str, subject: str, ref: str) -> dict[str, object]:
    return {
        "kind": kind,
        "subject": subject,
        "ref": ref,
        "store_id": None,
        "size": None,
        "state": None,
        "rank": None,
        "after": None,
        "outcome": PLANNED,
    }


def _write_row(write: WriteIndex) -> dict[str, object]:
    return _row("write", str(write.key), write.index.ref) | {"reason": write.reason}


def _delete_row(delete: DeleteEntry) -> dict[str, object]:
    after = [(index.ref, index.scope, index.signed) for index in sorted(delete.after)]
    return _row("delete", delete.entry.key, delete.entry.ref) | {
        "store_id": delete.entry.store_id,
        "size": delete.entry.size,
        "state": delete.state.value,
        "rank": delete.rank,
        "after": msgspec.json.encode(after).decode() if after else None,
        "reason": delete.reason,
    }


def _keep_row(keep: Keep) -> dict[str, object]:
    return _row("keep", keep.subject, keep.ref) | {
        "store_id": keep.store_id,
        "size": keep.size,
        "reason": keep.reason,
        "outcome": KEPT,
    }
