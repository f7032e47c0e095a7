"""How a run reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """An observer of a run."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps; None if the number is unknown."""

    def advance(self, steps: int = 1) -> None:
        """Count steps of the stage."""


class Unwatched:
    """No observer."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""
