"""A repository's pull requests, branches and tags, as far as they decide which caches are read."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Permission = Literal["contents", "pull-requests"]
"""A permission to read, besides that for the cache."""

_HEADS = "refs/heads/"
_TAGS = "refs/tags/"


@dataclass(frozen=True, slots=True)
class Pull:
    """A pull request."""

    number: int
    closed_at: datetime | None
    """None if it is open."""


@dataclass
class Repository:
    """One repository. Everything that nobody has closed or deleted is open, or exists."""

    default_branch: str = "main"
    permissions: set[Permission] = field(default_factory=lambda: {"contents", "pull-requests"})
    """What the token of the REST API may read."""
    closed_pulls: dict[int, datetime] = field(default_factory=dict)
    """By number: when they were closed."""
    deleted_refs: set[str] = field(default_factory=set)
    """Branches and tags, `refs/heads/…` and `refs/tags/…`."""

    def close(self, number: int, at: datetime) -> None:
        """Close a pull request."""
        self.closed_pulls[number] = at

    def reopen(self, number: int) -> None:
        """Open a pull request again."""
        self.closed_pulls.pop(number, None)

    def delete(self, ref: str) -> None:
        """Delete a branch or a tag."""
        self.deleted_refs.add(ref)

    def create(self, ref: str) -> None:
        """Create a branch or a tag again."""
        self.deleted_refs.discard(ref)

    def pull(self, number: int) -> Pull:
        """Return a pull request."""
        return Pull(number, self.closed_pulls.get(number))

    def pulls(self) -> list[Pull]:
        """Return the closed pull requests, those that were closed last first."""
        order = sorted(self.closed_pulls, key=lambda number: self.closed_pulls[number])
        return [self.pull(number) for number in reversed(order)]

    def exists(self, ref: str) -> bool:
        """Whether a branch or a tag exists."""
        return ref.startswith((_HEADS, _TAGS)) and ref not in self.deleted_refs
