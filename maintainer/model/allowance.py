"""A rate limit that several processes share: how many requests each of them may send.

A process takes some requests at once, sends them, and says later how many were answered. What is
taken and not yet answered counts as if it were still to come, so all processes together never send
more than the service has said remain.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

_SAME_WINDOW = timedelta(minutes=1)
"""How far the times of one reset may differ in two answers."""
_MOST, _PARTS = 100, 50
"""One process takes a fiftieth of what remains at once, and never more than a hundred requests."""
_NOTHING = timedelta(0)
_LONGEST_PAUSE = timedelta(hours=1)
"""Then somebody tries again, whatever the service has asked for."""
_UNKNOWN_WAIT = timedelta(minutes=1)
"""If nobody has said when the limit is reset."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one process has done and heard since it last said so."""

    resets: int = 0
    """How many there were when it took requests."""
    answered: int = 0
    """How many of them were answered."""
    returned: int = 0
    """How many of them it does not need any more."""
    most: int | None = None
    remaining: int | None = None
    """The least that an answer has said."""
    resets_in: timedelta | None = None
    pause: timedelta = _NOTHING
    """How long the service has asked to send nothing."""

    def later(self, by: timedelta) -> "Heard":
        """Return what of it still holds some time later: nothing of the limit after its reset."""
        if self.resets_in is None:
            return self
        if self.resets_in <= by:
            return replace(self, most=None, remaining=None, resets_in=None)
        return replace(self, resets_in=self.resets_in - by)

    def and_then(self, said: "Heard") -> "Heard":
        """Return it with what a later answer has said."""
        if said.remaining is None:
            return self
        is_reset = bool(
            self.resets_in and said.resets_in and said.resets_in - self.resets_in > _SAME_WINDOW
        )
        before = said.remaining if is_reset or self.remaining is None else self.remaining
        return replace(
            self,
            most=said.most,
            remaining=min(said.remaining, before),
            resets_in=said.resets_in,
        )


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is known of a rate limit, and of who uses it. All times are of one clock."""

    resets: int = 0
    """How often it was reset, as far as anybody has noticed."""
    most: int | None = None
    """Requests from one reset to the next."""
    remaining: int | None = None
    """The least that answers have said since the last reset."""
    answered: int = 0
    """Requests of all processes, since the last reset."""
    taken: int = 0
    """What processes have taken, and that was not answered yet."""
    reset_at: datetime | None = None
    paused_until: datetime | None = None

    def at(self, now: datetime) -> "Allowance":
        """Return it as it is now: after a reset, all of the limit remains."""
        return self if self.reset_at is None or now < self.reset_at else self.after_reset()

    def after_reset(self) -> "Allowance":
        """Return it without what was used: all of the limit remains."""
        return Allowance(
            self.resets + 1, self.most, remaining=self.most, paused_until=self.paused_until
        )

    def after(self, heard: Heard, now: datetime) -> "Allowance":
        """Return it with what a process has heard."""
        known = self.at(now)
        reset_at = None if heard.resets_in is None else now + heard.resets_in
        if reset_at and known.reset_at and reset_at - known.reset_at > _SAME_WINDOW:
            known = known.after_reset()
        if heard.resets == known.resets:
            done = heard.answered + heard.returned
            known = replace(
                known,
                answered=known.answered + heard.answered,
                taken=max(0, known.taken - done),
            )
        if heard.pause > _NOTHING:
            until = now + min(heard.pause, _LONGEST_PAUSE)
            known = replace(known, paused_until=max(until, known.paused_until or until))
        is_old = reset_at is not None and (
            reset_at <= now
            or (known.reset_at is not None and known.reset_at - reset_at > _SAME_WINDOW)
        )
        if heard.remaining is None or is_old:
            return known
        if known.remaining is None:  # What was answered before is no part of what remains.
            known = replace(known, answered=0, remaining=heard.remaining)
        return replace(
            known,
            most=heard.most or known.most,
            remaining=min(heard.remaining, known.remaining or 0),
            reset_at=known.reset_at or reset_at,
        )

    def pause(self, now: datetime) -> timedelta:
        """Return how much longer the service has asked to send nothing."""
        return max(_NOTHING, self.paused_until - now) if self.paused_until else _NOTHING

    def take(
        self, wanted: int, share: float, now: datetime, *, is_needed: bool = False
    ) -> tuple["Allowance", int, timedelta]:
        """Take so many requests, or more, or none; return how many, and how long to wait if none.

        `share` is which part of the limit all processes together may use. What is needed may be
        more than that, but not more than the limit.
        """
        pause = self.pause(now)
        if pause or not wanted:
            return self, 0, pause
        if some := self._some(wanted, share, is_needed=is_needed):
            return replace(self, taken=self.taken + some), some, _NOTHING
        wait = _UNKNOWN_WAIT if self.reset_at is None else max(_NOTHING, self.reset_at - now)
        return self, 0, wait

    def is_exhausted(self, share: float, now: datetime) -> bool:
        """Whether a run has no use to begin: answers have used the share, or there is a pause."""
        _, some, _ = replace(self.at(now), taken=0).take(1, share, now)
        return not some

    def _some(self, wanted: int, share: float, *, is_needed: bool) -> int:
        """Return how many requests to take; none if so many are not left."""
        if self.remaining is None:
            return wanted  # Nobody knows yet how many there are.
        free = self._free(self.remaining, share)
        if free >= wanted:
            return min(free, max(wanted, min(_MOST, self.remaining // _PARTS)))
        # Who took all since a reset may have been killed. An answer will say when the next one is.
        is_left = self.reset_at is None or self._free(self.remaining, 1) >= wanted
        return wanted if is_needed and is_left else 0

    def _free(self, remaining: int, share: float) -> int:
        """Return how many of those that remain may be taken."""
        ours = int(share * (remaining + self.answered)) - self.answered
        return min(ours, remaining) - self.taken
