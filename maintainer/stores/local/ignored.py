"""Ignored files: runs do not recognize or touch them."""

from maintainer.cacheconfig import NO_REF
from maintainer.model.decision import Keep
from maintainer.model.reason import Reason, Unrecognized
from maintainer.sanitize import printable

_MAX_LISTED = 100
"""The maximum number of names that are listed one by one."""


class Ignored:
    """Ignored names: some of them, and the number of others."""

    def __init__(self) -> None:
        self._some: list[Keep] = []
        self._more = 0

    def add(self, name: str, reason: Reason) -> None:
        """Ignore something, for this reason."""
        if len(self._some) < _MAX_LISTED:
            self._some.append(Keep(printable(name), NO_REF, reason))
        else:
            self._more += 1

    def keeps(self) -> list[Keep]:
        """Return the reasons to report."""
        if not self._more:
            return self._some
        return [*self._some, Keep(f"{self._more} other names", NO_REF, Unrecognized())]
