"""The plan of a run: stored before it is carried out, then read back to execute and report it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    Select,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    select,
    update,
)

from maintainer.cacheconfig import IndexId, Ref, Scope
from maintainer.decoding import decode_json
from maintainer.graph.entries import ENTRY_COLUMNS, to_entry
from maintainer.graph.tables import (
    ACTION,
    ENTRY,
    KEEP,
    REF,
    RUN,
    reason_columns,
)
from maintainer.model.decision import DeleteEntry, Heal, Keep, Plan, RewriteResult, WriteIndex
from maintainer.model.marks import State
from maintainer.model.outcome import Deferred, Kept, Outcome, Planned, Refused
from maintainer.model.reason import EarlierFailure, NotHealed, Reason, code_of

_PLANNED = code_of(Planned())
_DEFERRED = code_of(Deferred(EarlierFailure()))
_REFUSED = code_of(Refused(""))


@dataclass(frozen=True, slots=True)
class PlannedDeletion:
    """A deletion as it is stored."""

    position: int
    delete: DeleteEntry


def save_plan(connection: Connection, run: int, plan: Plan) -> None:
    """Store what a part of a plan changes; `save_keeps` stores what all of it keeps.

    Once all parts are stored, `number_actions` puts them in order.
    """
    first = min(0, connection.execute(_LOWEST, {"run": run}).scalar_one())
    rows = [*map(_write_row, plan.writes), *map(_delete_row, plan.deletes)]
    _insert(connection, run, first - 1, -1, rows)


def save_keeps(connection: Connection, run: int, keeps: Iterable[Keep]) -> None:
    """Store all that a run keeps: of that, only what the last run has not kept is written."""
    target_id = connection.execute(_TARGET, {"run": run}).scalar_one()
    known = defaultdict[tuple[Any, ...], list[int]](list)
    for row in connection.execute(_STILL_KEPT, {"target": target_id}):
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
        connection.execute(_ADD_KEEP, new)
    connection.execute(_NOTE_PLAN, {"run_id": run})


def number_actions(connection: Connection, run: int) -> None:
    """Put the actions of a plan in the order in which they are carried out.

    What the store has refused to delete before comes after the others of its rank: many such
    entries would end each sweep before it comes to what can be deleted.
    """
    connection.execute(_NUMBER, {"run": run})


def add_heal(connection: Connection, run: int, heal: Heal) -> int:
    """Store what is decided of an index after the sweep; return its position."""
    position = int(connection.execute(_HIGHEST, {"run": run}).scalar_one()) + 1
    if heal.blocked_by:
        reason = NotHealed(heal.key, len(heal.blobs), heal.blocked_by)
        row = _row("keep", heal.key, heal.index.ref, reason, Kept())
    else:
        row = _row("write", heal.key, heal.index.ref, heal.reason, Planned())
    _insert(connection, run, position, 1, [row])
    return position


def load_writes(connection: Connection, run: int) -> dict[tuple[Ref, str], int]:
    """Return the positions of the writes that are planned, by ref and key."""
    rows = connection.execute(_WRITES, {"run": run})
    return {(Ref(row.ref), row.subject): row.position for row in rows}


def load_deletions(
    connection: Connection, run: int, *, after: int, limit: int
) -> Sequence[PlannedDeletion]:
    """Read the next planned deletions, in order, after the position `after`."""
    rows = connection.execute(_DELETIONS, {"run": run, "last": after, "limit": limit})
    return [PlannedDeletion(row.position, _deletion(row)) for row in rows]


def _deletion(row: Row[Any]) -> DeleteEntry:
    after = decode_json(row.after or "[]", list[tuple[str, str, bool]])
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
        {"run": run, "at": position, "code": code_of(outcome), "all": outcome}
        for position, outcome in outcomes
    ]
    if rows:
        connection.execute(_END, rows)


def save_written(connection: Connection, run: int, position: int, result: RewriteResult) -> None:
    """Store the outcome of a write: its key may have changed."""
    save_outcomes(connection, run, [(position, result.outcome)])
    if result.written:
        key, size = str(result.index.key(result.written.number)), sum(result.sizes)
        connection.execute(_RENAME, {"run": run, "at": position, "new_key": key, "new_size": size})


def defer_rest(connection: Connection, run: int, reason: Reason) -> None:
    """Store an outcome for all deletions that are still planned: they were not tried."""
    deferred = Deferred(reason)
    connection.execute(_DEFER, {"run": run, "code": code_of(deferred), "all": deferred})


def count_deferred(connection: Connection, run: int) -> int:
    """Count the actions of a run that are deferred to the next."""
    return int(connection.execute(_COUNT_DEFERRED, {"run": run}).scalar_one())


def _insert(
    connection: Connection, run: int, first: int, step: int, rows: Sequence[dict[str, object]]
) -> None:
    if rows:
        numbered = [
            row | {"run_id": run, "position": first + step * number}
            for number, row in enumerate(rows)
        ]
        connection.execute(_ADD, numbered)


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


_run: BindParameter[int] = bindparam("run")
_of_run = ACTION.c.run_id == _run
_is_deletion = ACTION.c.kind == "delete"
_is_planned = ACTION.c.outcome == _PLANNED
_TARGET = select(RUN.c.target_id).where(RUN.c.id == _run)
_NOTE_PLAN = update(RUN).where(RUN.c.id == bindparam("run_id")).values(has_plan=True)

_STILL_KEPT = select(
    KEEP.c.id, KEEP.c.subject, KEEP.c.ref, KEEP.c.store_id, KEEP.c.size, KEEP.c.facts
).where(KEEP.c.target_id == bindparam("target"), KEEP.c.last_run.is_(None))
_ADD_KEEP = insert(KEEP)
_END_KEEP = update(KEEP).where(KEEP.c.id == bindparam("row")).values(last_run=_run)

_ADD = insert(ACTION)
_LOWEST = select(func.coalesce(func.min(ACTION.c.position), 0)).where(_of_run)
_HIGHEST = select(func.coalesce(func.max(ACTION.c.position), -1)).where(_of_run)
_EARLIER = ACTION.alias()
_refused = (
    select(_EARLIER.c.store_id)
    .where(
        # A literal, so that the index of these is used.
        _EARLIER.c.outcome == literal_column(f"'{_REFUSED}'"),
        _EARLIER.c.run_id.in_(select(RUN.c.id).where(RUN.c.target_id == _TARGET.scalar_subquery())),
    )
    .distinct()
    .subquery()
)
"""What the store has refused to delete before: so it is tried after the others."""
_numbered = (
    select(
        ACTION.c.id,
        func.row_number()
        .over(
            order_by=(
                case({"write": 0, "delete": 1}, value=ACTION.c.kind),
                case((_is_deletion, ACTION.c.rank)),
                case((_is_deletion & _refused.c.store_id.is_not(None), 1), else_=0),
                case((_is_deletion, ENTRY.c.created_at)),
                case((_is_deletion, ACTION.c.store_id)),
                # Positions are negative and fall in the order of insertion.
                -ACTION.c.position,
            )
        )
        .label("number"),
    )
    .select_from(ACTION)
    .outerjoin(
        ENTRY,
        (ENTRY.c.store_id == ACTION.c.store_id) & (ENTRY.c.target_id == _TARGET.scalar_subquery()),
    )
    .outerjoin(_refused, _refused.c.store_id == ACTION.c.store_id)
    .where(_of_run)
    .subquery()
)
_NUMBER = (
    update(ACTION)
    .where(_of_run, ACTION.c.id == _numbered.c.id)
    .values(position=_numbered.c.number - 1)
)
_WRITES = (
    select(ACTION.c.ref, ACTION.c.subject, ACTION.c.position)
    .where(_of_run, ACTION.c.kind == "write", _is_planned)
    .order_by(ACTION.c.position)
)
_DELETIONS: Select[*tuple[Any, ...]] = (
    select(
        *ENTRY_COLUMNS,
        ACTION.c.position,
        ACTION.c.state.label("planned_state"),
        ACTION.c.facts.label("planned_reason"),
        ACTION.c.after,
        RUN.c.started_at,
    )
    .select_from(ACTION)
    .join(RUN, RUN.c.id == ACTION.c.run_id)
    .join(
        ENTRY,
        (ENTRY.c.target_id == RUN.c.target_id) & (ENTRY.c.store_id == ACTION.c.store_id),
    )
    .join(REF, REF.c.id == ENTRY.c.ref_id)
    .where(_of_run, _is_deletion, _is_planned, ACTION.c.position > bindparam("last"))
    .order_by(ACTION.c.position)
    .limit(bindparam("limit"))
)
_here = update(ACTION).where(_of_run, ACTION.c.position == bindparam("at"))
_outcome: dict[str, BindParameter[Any]] = {
    "outcome": bindparam("code"),
    "outcome_facts": bindparam("all"),
}
_END = _here.values(_outcome)
_RENAME = _here.values(subject=bindparam("new_key"), size=bindparam("new_size"))
_DEFER = update(ACTION).where(_of_run, _is_deletion, _is_planned).values(_outcome)
_COUNT_DEFERRED = select(func.count()).where(_of_run, ACTION.c.outcome == _DEFERRED)
