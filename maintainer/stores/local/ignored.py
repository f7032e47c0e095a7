"""What is ignored, because runs do not recognize or touch it."""

from maintainer.cacheconfig import NO_REF
from maintainer.model.decision import Keep
from maintainer.model.reason import Reason, Unrecognized
from maintainer.sanitize import printable

_TOLD = 100
"""Up to this many names are listed one by one."""


class Ignored:
    """Ignored names: some, and how many there are."""

    def __init__(self) -> None:
        self._some: list[Keep] = []
        self._more = 0

    def add(self, name: str, reason: Reason) -> None:
        """Ignore something, for this reason."""
        if len(self._some) < _TOLD:
            self._some.append(Keep(printable(name), NO_REF, reason))
        else:
            self._more += 1

    def keeps(self) -> list[Keep]:
        """Return what to tell of them."""
        if not self._more:
            return self._some
        return [*self._some, Keep(f"{self._more} other names", NO_REF, Unrecognized())]
