"""Leases: who may work on a target, by the clock of the database.

Each lease has a token, one higher than that of the lease before it. A run states its token in every
transaction that records a step, and before it changes the cache: a worker that was paused for so
long that another one took over has an old token, and does nothing more, whatever its clock says.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import BindParameter, Connection, bindparam, or_, select, true, update

from maintainer.errors import DatabaseError, LeaseLostError
from maintainer.graph.backend import Refresh
from maintainer.graph.dialect import database_now, insert_new
from maintainer.graph.tables import LEASE
from maintainer.graph.values import this_process

DURATION = timedelta(seconds=60)
"""How long a lease lasts that nobody renews."""
_BEATS = 3
"""A lease is renewed so often within its duration."""
_SOONER = 0.1
"""What could not be renewed is tried again after this part of the time."""
_TRUSTED = 1.0
"""For so many seconds after a check, the next one may be left out."""

Begin = Callable[[], AbstractContextManager[Connection]]


def take(connection: Connection, name: str, *, is_locked: bool) -> int | None:
    """Take the lease of a target; return its token, or None if somebody else has it.

    `is_locked` is whether the caller holds the lock of the target, which ends with a process. Then
    nobody who held it with this lease is alive.
    """
    connection.execute(_ADD, {"name": name, "token": 0, "holder": "", "is_locked": False})
    if connection.scalar(_LOCK, {"lease": name}) is None:
        return None  # It is being renewed, or its holder is in a transaction.
    asked = {
        "lease": name,
        "locked": is_locked,
        "process": this_process(),
        "duration": DURATION // timedelta(microseconds=1),
    }
    token: int | None = connection.scalar(_TAKE_LOCKED if is_locked else _TAKE, asked)
    return token


def _elapsed() -> float:
    """Return seconds that go on while the process, or the machine, is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class Lease:
    """The right to work on a target, as long as nobody else has taken it."""

    name: str
    """As the database has it."""
    token: int
    begin: Begin
    """Opens a transaction."""
    target: str
    """What errors call it."""
    _checked_at: float = -math.inf

    def check(self, connection: Connection) -> None:
        """Renew it in a transaction, which nobody can take it during. Raises LeaseLostError."""
        asked = {
            "lease": self.name,
            "mine": self.token,
            "duration": DURATION // timedelta(microseconds=1),
        }
        # The time before: a pause may begin at any moment, also after the answer.
        now = _elapsed()
        if connection.execute(_RENEW, asked).rowcount != 1:
            raise LeaseLostError(self.target)
        self._checked_at = now

    def confirm(self) -> None:
        """Check it, unless that was done a moment ago. Raises LeaseLostError or DatabaseError."""
        if _elapsed() - self._checked_at >= _TRUSTED:
            with self.begin() as connection:
                self.check(connection)

    @contextmanager
    def renewing(self, *locks: Refresh) -> Iterator[None]:
        """Renew it from time to time, in a thread, and refresh locks; give it back at the end."""
        ended = threading.Event()

        def renew() -> None:
            beat = pause = DURATION.total_seconds() / _BEATS
            while not ended.wait(pause):
                pause = beat
                try:
                    with self.begin() as connection:
                        self.check(connection)
                except LeaseLostError:
                    return  # The run notices it at its next step.
                except DatabaseError:  # It may be busy, or away for a while.
                    pause = beat * _SOONER
                for refresh in locks:
                    refresh()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(DatabaseError), self.begin() as connection:
                connection.execute(_GIVE_BACK, {"lease": self.name, "mine": self.token})


_lease: BindParameter[str] = bindparam("lease")
_until = database_now() + bindparam("duration", type_=LEASE.c.expires_at.type)
_ADD = insert_new(LEASE)
_LOCK = select(LEASE.c.token).where(LEASE.c.name == _lease).with_for_update(skip_locked=True)
_take = (
    update(LEASE)
    .where(LEASE.c.name == _lease)
    .values(
        token=LEASE.c.token + 1,
        holder=bindparam("process"),
        is_locked=bindparam("locked"),
        expires_at=_until,
    )
    .returning(LEASE.c.token)
)
_is_over = or_(LEASE.c.expires_at.is_(None), LEASE.c.expires_at <= database_now())
_TAKE = _take.where(_is_over)
_TAKE_LOCKED = _take.where(or_(_is_over, LEASE.c.is_locked == true()))
_mine = update(LEASE).where(LEASE.c.name == _lease, LEASE.c.token == bindparam("mine"))
_RENEW = _mine.values(expires_at=_until)
_GIVE_BACK = _mine.values(expires_at=None)
