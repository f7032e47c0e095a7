"""A cache whose runs are processes of `maintainer gc`, any of which may be killed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.empty_database import query, url_of, uses_postgresql
from tests.integration.simulated_runs import Memory
from tests.processes import Command, start
from tests.stores.gate import Gate, Kill
from tests.stores.memory_place import Room

IMAGES = ("api", "web", *(f"pr-{number}" for number in range(4)))
NAMES = (*IMAGES, "maintained")


@dataclass(frozen=True)
class Found:
    """What is stored, and what builders make of it."""

    stored: set[str]
    usable: Mapping[str, set[str]]
    """The layers that builders of each image find."""
    missing: Mapping[str, set[str]]
    """The layers that each index references, and that are not there."""

    def harm(self, later: "Found") -> list[str]:
        """Return for which images builders find less, or indexes reference more that is missing."""
        return [
            name
            for name in NAMES
            if self.usable[name] - later.usable[name] or later.missing[name] - self.missing[name]
        ]


@dataclass
class Victim:
    """A cache with a lot to do, which is put back before each run that is to be killed."""

    room: Room
    memory: Memory
    gate: Gate
    store: str
    """The setting."""
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """With the credentials."""
    begin: Callable[[], None] = lambda: None
    """Called before each run: sets the clock of the server."""
    orphans: tuple[str, ...] = tuple(f"orphan {number}" for number in range(12))
    """The layers that no index references; a registry would have collected them."""

    def __post_init__(self) -> None:
        self._build("docs", "web")
        assert self.gc() == 0, self.said()
        self._build("test", "web")
        for step in self.orphans:
            self.room.store_layer(step)
        self.room.evict("test")
        self._put_back = self.room.keep()
        self.before = self.found()

    def _build(self, api: str, web: str) -> None:
        """Export all images, each later than the one before: so no two are the same."""
        for number, image in enumerate(IMAGES):
            self.room.passes(hours=1)
            self.room.build(image, (api, web)[number % 2], other_form=False)

    def set_up(self) -> None:
        """Begin anew."""
        self._put_back()

    def gc(self, kill: Kill | None = None) -> int:
        """Do a run without a grace period, which may be killed; return its exit status."""
        self.gate.arm(kill)
        self.begin()
        arguments = ("gc", "--grace", "0s", "--store", self.store)
        variables = {
            "MAINTAINER_DATABASE": url_of(self.memory.path),
            "MAINTAINER_EXPORT_WAIT": "0",
            **self.variables,
        }
        out, err = self.folder / "out", self.folder / "err"
        process = start(Command(arguments, self.folder, variables, out, err))
        self.gate.aim(process.pid)
        status = process.wait(60)
        self.room.look()
        return status

    def said(self) -> str:
        """Return what the last run has printed."""
        return (self.folder / "out").read_text() + (self.folder / "err").read_text()

    def found(self) -> Found:
        """Return what there is now."""
        return Found(
            self.room.stored(),
            {name: self.room.usable(name) for name in NAMES},
            {name: self.room.missing(name) for name in NAMES},
        )

    def statuses(self) -> list[str]:
        """Return how the runs have ended, by a database that is whole."""
        if not uses_postgresql():
            assert query(self.memory.path, "PRAGMA integrity_check") == [("ok",)]
            assert query(self.memory.path, "PRAGMA foreign_key_check") == []
        found = query(self.memory.path, "SELECT status FROM run ORDER BY id")
        return [status for (status,) in found]
