"""The results of checks of contents. Pure."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from maintainer.cacheconfig import Digest
from maintainer.model.reason import LossAccepted, StorageOutage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def next_reading(after: datetime, every: timedelta) -> datetime:
    """Return when indexes are read again after a time: at each multiple of a period since 1970."""
    return _EPOCH + ((after - _EPOCH) // every + 1) * every


@dataclass(frozen=True, slots=True)
class CheckedContents:
    """The results of one round of checks, for the graph."""

    looked_up: dict[int, datetime] = field(default_factory=dict)
    """The entries that were looked up, and when."""
    readable_entries: set[int] = field(default_factory=set)
    broken_entries: set[int] = field(default_factory=set)
    """Those whose content cannot be downloaded."""
    readable_blobs: set[Digest] = field(default_factory=set)
    broken_blobs: set[Digest] = field(default_factory=set)
    """The blobs without content in any entry that the token reads."""
    hidden_entries: set[int] = field(default_factory=set)
    hidden_blobs: set[Digest] = field(default_factory=set)
    """The blobs that are listed but that a look-up does not find: their content is unknown."""

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
    """Errors of inconclusive checks, one line for each."""
    deferred: int = 0
    """Due checks that were deferred to the next run."""
    ambiguous: set[Digest] = field(default_factory=set)
    """Blobs that several entries have, one of which has no content; it is unknown which one."""
    outage: StorageOutage | LossAccepted | None = None
    """Why no blob counts as gone, if this looks like an outage; or what counts as gone all the
    same, because whoever started the run says that it is none.
    """
