"""An organization of an emulated GitHub, and the GitHub App that is installed in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class App:
    """A GitHub App, and its one installation."""

    id: int
    installation: int
    public_key: bytes


@dataclass(slots=True)
class Account:
    """An organization."""

    login: str = "octo"
    repositories: Sequence[str] = ()
    """Their names, in the order of their creation."""
    archived: frozenset[str] = frozenset()
    app: App | None = None
    tokens_made: int = 0
    """How many tokens of the installation were made so far."""
    lifetime: timedelta = timedelta(hours=1)
    """Of a token of the installation."""
