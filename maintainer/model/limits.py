"""The limits that the owner of a cache sets: how full it gets, and what other tools store. Pure."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class KeepFree:
    """How much of a quota must stay free: a share of it, or bytes."""

    share: float = 0.0
    """0 to 1."""
    size: int = 0
    """Bytes."""

    def of(self, quota: int, expected: int = 0) -> int:
        """Return how many bytes of a quota that is. If more is expected to arrive until the next
        run, that stays free, up to half of the quota.
        """
        return max(self.size or round(quota * self.share), min(expected, quota // 2))

    def limit(self, quota: int, expected: int = 0) -> int:
        """Return how many bytes a cache may hold then."""
        return max(quota - self.of(quota, expected), 0)


@dataclass(frozen=True, slots=True)
class ToolRule:
    """What one other tool may store. Each limit that is set selects entries on its own."""

    prefix: str
    """The beginning of the keys of its entries."""
    keep_newest: int | None = None
    """How many entries of each ref stay."""
    unused_for: timedelta | None = None
    """How long an entry stays after its last use."""
    max_bytes: int | None = None
    """How much it may store, in all refs."""
