"""A rate limit that the processes of a fleet share, as one of them sees it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from maintainer.model.allowance import Heard

_FRESH = 5.0
"""Seconds after which a process asks whether there is a pause."""
_UNLIMITED = 60.0
"""Seconds for which an answer without a limit counts."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a process may do."""

    resets: int
    number: int
    """How many requests it may send more than before."""
    wait: timedelta = timedelta(0)
    """Until it may ask again; zero if it got what it asked for."""
    is_paused: bool = False
    """Whether that is because the service has asked to send nothing."""
    resets_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a process asks for."""

    number: int = 0
    """Requests; none to learn of pauses."""
    share: float = 1.0
    """Which part of the limit all processes together may use."""
    is_needed: bool = False
    """Whether it may be more than the share: a run that has begun lists all of a cache."""


Exchange = Callable[[str, Heard, Asked], Granted]
"""Says what a process has done on a limit, by its name, and asks for more. Raises DatabaseError."""


@dataclass(slots=True)
class SharedLimit:
    """One limit. Several threads use it, each for runs of its own."""

    name: str
    exchange: Exchange
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _held: int = 0
    """Requests that are taken, and not sent."""
    _heard: Heard = field(default_factory=Heard)
    _heard_at: float = 0.0
    _valid_until: float = 0.0
    _paused_until: float = 0.0
    _unlimited_until: float = 0.0

    def send(self, share: float) -> tuple[int, float]:
        """Take a request, to be sent now; return in which window, and seconds to wait instead."""
        with self._lock:
            wait = self._get(Asked(1, share, is_needed=True))
            if not wait:
                self._held = max(0, self._held - 1)
            return self._heard.resets, wait

    def reserve(self, number: int, share: float) -> bool:
        """Whether all together have so many requests left of their share.

        A pause is none of its business: whoever sends waits for its end.
        """
        with self._lock:
            self._get(Asked(number, share))
            return self._has(number) or self._is_paused

    def answered(self, resets: int, said: Heard | None) -> None:
        """Record that a request is over, and what its answer has said, if there is one."""
        with self._lock:
            heard = self._heard_now()
            if resets == heard.resets:
                heard = replace(heard, answered=heard.answered + 1)
            if said:
                is_limited = said.remaining is not None
                self._unlimited_until = 0.0 if is_limited else self.clock() + _UNLIMITED
                heard = heard.and_then(said)
            self._heard = heard

    def pause(self, duration: timedelta) -> None:
        """Let all processes send nothing for a while, because the service has asked for it."""
        with self._lock:
            self._heard = replace(self._heard_now(), pause=duration)
            self._ask(Asked())

    def give_back(self) -> None:
        """Give back what was taken and not sent."""
        with self._lock:
            heard = self._heard_now()
            self._heard = replace(heard, returned=heard.returned + self._held)
            self._held = 0
            self._ask(Asked())
            self._valid_until = 0.0

    def _get(self, asked: Asked) -> float:
        """Have so many requests; return seconds to wait if there are none, or there is a pause."""
        is_fresh = self.clock() < self._valid_until
        while not (is_fresh and self._has(asked.number)):
            granted = self._ask(asked)
            if granted.wait:
                return granted.wait.total_seconds()
            is_fresh = True
        return max(0.0, self._paused_until - self.clock())

    def _heard_now(self) -> Heard:
        """Return what was heard, as it is now: the time of a reset counts from an answer on."""
        now = self.clock()
        self._heard = self._heard.later(timedelta(seconds=now - self._heard_at))
        self._heard_at = now
        return self._heard

    def _has(self, number: int) -> bool:
        return self._held >= number or self._is_unlimited

    def _ask(self, asked: Asked) -> Granted:
        """Say what is new, and ask for what is missing of so many requests."""
        began, heard = self.clock(), self._heard_now()
        missing = 0 if self._has(asked.number) else asked.number - self._held
        granted = self.exchange(self.name, heard, replace(asked, number=missing))
        self._heard = Heard(granted.resets)
        self._held = granted.number + (self._held if granted.resets == heard.resets else 0)
        self._paused_until = began + granted.wait.total_seconds() if granted.is_paused else 0.0
        until_reset = _FRESH if granted.resets_in is None else granted.resets_in.total_seconds()
        self._valid_until = began + min(_FRESH, until_reset)
        return granted

    @property
    def _is_unlimited(self) -> bool:
        return self.clock() < self._unlimited_until

    @property
    def _is_paused(self) -> bool:
        return self.clock() < self._paused_until
