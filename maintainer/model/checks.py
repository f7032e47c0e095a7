"""What checks of contents have shown. Pure."""

from dataclasses import dataclass, field
from datetime import datetime

from maintainer.cacheconfig import Digest
from maintainer.model.reason import StorageOutage


@dataclass(frozen=True, slots=True)
class CheckedContents:
    """What one round of checks has shown, for the graph."""

    looked_up: dict[int, datetime] = field(default_factory=dict)
    """The entries that were looked up, and when."""
    readable_entries: set[int] = field(default_factory=set)
    broken_entries: set[int] = field(default_factory=set)
    """Those whose content cannot be downloaded."""
    readable_blobs: set[Digest] = field(default_factory=set)
    broken_blobs: set[Digest] = field(default_factory=set)
    """Those of which no entry that the token reads has content."""
    hidden_entries: set[int] = field(default_factory=set)
    hidden_blobs: set[Digest] = field(default_factory=set)
    """Those that a look-up does not find although they are listed: what they contain is unknown."""

    @property
    def changes_anything(self) -> bool:
        """Whether an entry was found to have no content."""
        return bool(self.broken_entries or self.broken_blobs)


@dataclass(slots=True)
class CheckTotals:
    """What a run has checked so far, for its report."""

    readable: int = 0
    broken: set[Digest] = field(default_factory=set)
    """The blobs that count as gone."""
    failures: list[str] = field(default_factory=list)
    """What checks met that proved nothing, one line for each."""
    deferred: int = 0
    """Checks that are due, and were left to the next run."""
    ambiguous: set[Digest] = field(default_factory=set)
    """Blobs without content of which it is not known which of several entries lacks it."""
    outage: StorageOutage | None = None
    """Why no blob counts as gone, if so many seem to be that it must be an outage."""
