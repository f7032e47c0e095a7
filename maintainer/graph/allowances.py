"""The rate limits that all processes on one database share, one row for each."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, or_, select, update

from maintainer.errors import DatabaseError
from maintainer.graph.clock import load_now
from maintainer.graph.database import Database
from maintainer.graph.dialect import insert_or_update, is_shared
from maintainer.graph.tables import ALLOWANCE
from maintainer.model.allowance import Allowance, Heard
from maintainer.stores.http.requests import RateWindow
from maintainer.stores.http.shared_limit import Asked, Granted, SharedLimit

_NOTHING = timedelta(0)
_KEPT = timedelta(days=1)
"""After its reset, a limit that nobody uses is forgotten."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class SharedLimits:
    """The limits that the runs of this process share with other processes, on a server."""

    database: Database
    _limits: dict[str, SharedLimit] = field(default_factory=dict)
    _users: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def sharing(self, window: RateWindow) -> Iterator[None]:
        """Count what a run sends together with what others send, in this process and elsewhere."""
        name = window.name
        if not name or not self.database.is_shared:
            yield
            return
        with self._lock:
            self._users[name] += 1
            window.shared = self._limits.setdefault(name, SharedLimit(name, self._exchange))
        try:
            yield
        finally:
            with self._lock:
                self._users[name] -= 1
                is_last = not self._users[name]
                if is_last:
                    window.shared = None
            if is_last:
                with suppress(DatabaseError):  # It counts as sent until the reset.
                    self._limits[name].give_back()

    def _exchange(self, name: str, heard: Heard, asked: Asked) -> Granted:
        with self.database.begin() as connection:
            return exchange(connection, name, heard, asked)


def exchange(connection: Connection, name: str, heard: Heard, asked: Asked) -> Granted:
    """Record what a process has heard of a limit, and what it takes of it."""
    connection.execute(_LOCK, {"name": name, **asdict(Allowance())})
    before = _allowance(connection.execute(_LOAD, {"limit_name": name}).one())
    now = load_now(connection)  # Others may have held the row for a while.
    if before == Allowance():
        connection.execute(_FORGET, {"limit_name": name, "now": now, "old": now - _KEPT})
    known = before.after(heard, now)
    after, taken, wait = known.take(asked.number, asked.share, now, is_needed=asked.is_needed)
    connection.execute(_SAVE, {"limit_name": name, **asdict(after)})
    resets_in = None if after.reset_at is None else after.reset_at - now
    is_paused = known.pause(now) > _NOTHING
    return Granted(after.resets, taken, wait, is_paused=is_paused, resets_in=resets_in)


@dataclass(frozen=True, slots=True)
class KnownLimits:
    """What is known of each limit, by its name."""

    allowances: Mapping[str, Allowance]
    now: datetime

    def are_exhausted(self, name: str, share: float) -> bool:
        """Whether no run should begin that needs a limit, of which all may use a share."""
        known = self.allowances.get(name)
        return known is not None and known.is_exhausted(share, self.now)


def load_limits(connection: Connection) -> KnownLimits:
    """Return what is known of each limit; of a file, nothing."""
    if not is_shared(connection):
        return KnownLimits({}, _EPOCH)
    rows = connection.execute(select(ALLOWANCE)).all()
    known = {row.name: _allowance(row) for row in rows}
    return KnownLimits(known, load_now(connection) if known else _EPOCH)


def _allowance(row: Row[Any]) -> Allowance:
    return Allowance(
        resets=row.resets,
        most=row.most,
        remaining=row.remaining,
        answered=row.answered,
        taken=row.taken,
        reset_at=row.reset_at,
        paused_until=row.paused_until,
    )


_LOCK = insert_or_update(ALLOWANCE, ("name",), ("name",))
"""Adds a row, or changes nothing in it: either way, it is ours until the transaction ends."""
_is_it = ALLOWANCE.c.name == bindparam("limit_name")
_LOAD = select(ALLOWANCE).where(_is_it)
_SAVE = update(ALLOWANCE).where(_is_it)
_unused = (
    select(ALLOWANCE.c.name)
    .where(
        ~_is_it,
        or_(ALLOWANCE.c.reset_at < bindparam("old"), ALLOWANCE.c.remaining.is_(None)),
        or_(ALLOWANCE.c.paused_until.is_(None), ALLOWANCE.c.paused_until < bindparam("now")),
    )
    .with_for_update(skip_locked=True)
)
_FORGET = delete(ALLOWANCE).where(ALLOWANCE.c.name.in_(_unused))
"""Every job of a workflow has a token of its own: what tells nothing any more must not stay."""
