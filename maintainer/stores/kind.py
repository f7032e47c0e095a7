"""The declaration of a kind of store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from maintainer.model.finding import Finding
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.base import Store
from maintainer.stores.discovery import Discoverer


class Connection(Protocol):
    """The location of one cache."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Identifies the cache by its location. It may contain secrets."""

    @property
    def limit(self) -> str:
        """The name of the rate limit that its requests count against; empty if none is shared."""

    def open(self, *, hasty: bool = False) -> AbstractAsyncContextManager[Store]:
        """Open it for one run; if `hasty`, somebody waits, so a service that cannot be reached, or
        does not answer, is not tried for long.

        Raises UsageError if the settings are not enough, StoreError if it does not exist.
        """


@dataclass(frozen=True, slots=True)
class StoreKind:
    """One kind of store."""

    name: str
    """The prefix of the setting `store`, up to a colon."""
    form: str
    """The format of that setting, for messages."""
    what: str
    """What is there: a noun, for messages and help."""
    has_place: bool
    """Whether a location follows the name."""
    connect: Callable[[Settings, TargetSettings | None], Connection]
    """Reads the settings and a target of the configuration; raises UsageError."""
    can_be_opened_early: bool
    """Whether incomplete settings are detected at once."""
    uses_repository: bool = False
    """Whether a target names the repository that it belongs to."""
    uses: frozenset[str] = frozenset({"merged_tag"})
    """The settings that it uses, of those that some kinds do not use."""
    discoverer: Discoverer | None = None
    """Finds caches of this kind."""
    diagnose: "Diagnose | None" = None
    """Checks what a run needs of it, in more detail than by opening and listing it."""
    blobs_of: Callable[[str], tuple[str, ...]] | None = None
    """Returns where the blobs of a setting `store` are, if several caches could share them; raises
    UsageError."""
    indexes_of: Callable[[str], Sequence[tuple[str, ...]]] | None = None
    """Returns where its indexes are, if another cache could be below: places, whose last part is
    the beginning of their keys; raises UsageError."""


Diagnose = Callable[
    [Settings, TargetSettings | None, Callable[[], datetime]], AsyncIterator[Finding]
]
"""Checks a cache, without a change: by the settings, a target and a clock. Raises UsageError."""
