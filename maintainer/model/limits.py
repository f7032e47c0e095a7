"""The limits that the owner of a cache sets: how full it gets, and what other tools store. Pure."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from maintainer.cacheconfig import Ref

DEFAULT_GRACE = timedelta(hours=24)
"""How long an entry must be unreferenced before it is deleted, if no setting says it."""
_KEPT = 2
"""Databases: the one that the next run restores, and one that another run may just have read."""


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
    form: str = ""
    """A regular expression that all of a key must match, if set."""
    refs: frozenset[Ref] | None = None
    """Where it applies; None for all refs."""

    @classmethod
    def of_saved(cls, key: str, refs: frozenset[Ref]) -> Self:
        """Return the rule for the database that the Action saves with each run, in its own refs.

        Its keys go on with a `#`, which no other such key contains, the numbers of a run and of its
        attempt, and the name of a job.
        """
        form = rf"{re.escape(key)}#\d+-\d+-.+"
        return cls(f"{key}#", keep_newest=_KEPT, form=form, refs=refs)

    def is_about(self, ref: Ref, key: str) -> bool:
        """Whether an entry of another tool is this tool's."""
        if not key.startswith(self.prefix) or (self.refs is not None and ref not in self.refs):
            return False
        return not self.form or re.fullmatch(self.form, key, re.ASCII | re.DOTALL) is not None
