"""When a run may end at once: nothing has changed since another run, and nothing is due. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from maintainer.model import reason as reasons
from maintainer.model.decision import Keep

LONGEST = timedelta(days=1)
"""A run does everything if the last one that did is as long ago, whatever has changed."""

_LASTING = (
    reasons.UpToDate,
    reasons.NothingLeft,
    reasons.Signed,
    reasons.UsedByBuilds,
    reasons.NotWritable,
    reasons.NotADigest,
    reasons.NotAFile,
    reasons.NotABlobDirectory,
    reasons.BrokenTag,
    reasons.Unrecognized,
)
"""Reasons to keep something that hold for as long as nothing changes."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What a run saw that did everything, and had nothing to do."""

    run: int
    fingerprint: bytes
    """Of all that it depended on but the time."""
    since: datetime
    until: datetime
    """When something falls due, or may."""

    def holds(self, fingerprint: bytes | None, now: datetime) -> bool:
        """Whether a run that begins now would have nothing to do either."""
        return fingerprint == self.fingerprint and self.since <= now < self.until


class Outlook:
    """When something falls due, as far as a run that had nothing to do knows."""

    def __init__(self, now: datetime) -> None:
        self.fingerprint: bytes | None = None
        """Of what the run depends on, as it saw it last; None if nothing shows that."""
        self._now = now
        self._next: datetime | None = now + LONGEST

    def idle(self, run: int) -> Idle | None:
        """Return what to remember of a run; None if the next run has to do everything."""
        if self.fingerprint is None or self._next is None or self._next <= self._now:
            return None
        return Idle(run, self.fingerprint, self._now, self._next)

    def expect(self, moment: datetime | None) -> None:
        """Add when something falls due; None adds nothing."""
        if self._next is not None and moment is not None:
            self._next = min(self._next, moment)

    def doubt(self) -> None:
        """Count on nothing: something is due now, or may be at any time."""
        self._next = None

    def keep(self, keeps: Iterable[Keep]) -> None:
        """Add what is kept, and until when."""
        for one in keeps:
            if isinstance(one.reason, reasons.Grace):
                self.expect(one.reason.until)
            elif not isinstance(one.reason, _LASTING):
                self.doubt()
