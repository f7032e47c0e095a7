"""What a kind of store declares about itself, so that nothing else has to know it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from maintainer.settings import Settings, TargetSettings
from maintainer.stores.base import Store


class Connection(Protocol):
    """Where one cache is, and how to open it."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Where it is: another place is another cache. It may hold secrets."""

    def open(self) -> AbstractAsyncContextManager[Store]:
        """Open it for one run.

        Raises UsageError if what is set is not enough, StoreError if it is not there.
        """


@dataclass(frozen=True, slots=True)
class StoreKind:
    """One kind of store."""

    name: str
    """The prefix of the setting `store`, up to a colon."""
    form: str
    """How people write that setting."""
    has_place: bool
    """Whether a place follows the name."""
    connect: Callable[[Settings, TargetSettings | None], Connection]
    """Reads what the environment and a target of the configuration say; raises UsageError."""
    can_be_opened_early: bool
    """Whether incomplete settings are detected at once."""
    uses_repository: bool = False
    """Whether a target names the repository that it belongs to."""
    verifies: bool = False
    """Whether it uses the setting `verify`."""
