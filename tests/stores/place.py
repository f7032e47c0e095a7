"""What the contract asks of a store: somewhere to build, to have accidents, and to run.

A `Place` is one cache in one store, with the builders that export to it, and with the databases of
two owners who run `maintainer gc` on it. A new store joins with a place of its own; `test_local.py`
shows all that is left to write then. A place knows its store and how its builders work. It knows
nothing of other stores, and nothing here knows how many there are.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import select

from maintainer.graph.tables import BLOB
from maintainer.report import Report
from tests.integration.simulated_runs import Memory

_BELOW = {"base": None, "lib": "base", "api": "lib", "web": "lib", "docs": "base", "test": "api"}
STEPS = tuple(_BELOW)
"""The steps of the images, each on top of another: so a step always needs the same layers."""
IMAGES = ("api", "web", "docs")
TOOLS = ("node-modules", "toolchain")
"""What other tools store beside the cache."""

Actions = Mapping[int, Callable[[], None]]
"""What happens before which step of a run. A step is the smallest thing that a run does to the
store: a request, or an operation on a file. The first one is number 1.
"""


@dataclass(frozen=True)
class How:
    """How an owner runs `maintainer gc`."""

    grace: timedelta
    dry_run: bool = False
    no_sweep: bool = False
    other_way: bool = False
    """In the other way that the store offers, if any: another protocol, or a merge of all tags."""
    room: bool = False
    """Whether to make room, so that a little less stays than would stay without that."""
    limit: int | None = None
    """How many bytes may be stored; if more stays, results leave."""
    repair: bool = False
    """Whether it only repairs."""
    guarded: bool = False
    """Whether an implausible loss ends it."""
    requests: int | None = None
    """How many requests it may send; None if that is not limited."""
    remembers: timedelta | None = None
    """How long it remembers overwritten exports; None if as usual."""

    @property
    def settings(self) -> dict[str, object]:
        """The settings that are not as usual, but for the grace period."""
        chosen: dict[str, object] = {}
        if self.limit is not None:
            chosen |= {"quota": self.limit, "room": {"keep_free": "0B"}}
        if self.requests is not None:
            chosen["max_requests"] = self.requests
        if self.remembers is not None:
            chosen["remember_exports"] = self.remembers
        return chosen


Results = list[frozenset[str]]
"""The blobs that each result of an index needs."""


class Place(Protocol):
    """One cache. Every method may be called between two steps of a run, except the runs."""

    @property
    def replaces(self) -> bool:
        """Whether an export replaces what earlier exports of its image have offered."""

    @property
    def deletes_unconditionally(self) -> bool:
        """Whether a deletion may hit what a build has found since the run asked (SAFETY.md)."""

    def build(self, image: str, step: str, *, other_form: bool) -> Results | None:
        """Export a build of an image up to a step.

        Returns the results that builders find by it from now on; None if the build failed.

        The other form is one that only some builders of this store use, if there is one.
        """

    def store_layer(self, step: str) -> None:
        """Store the layer of a step as an export does that ends before it writes its index."""

    def store_other(self, name: str) -> None:
        """Store what belongs to another tool; nothing if it is stored already."""

    def begin_upload(self, name: str) -> None:
        """Begin to store a layer, and never end."""

    def evict(self, step: str) -> None:
        """Remove the layer of a step, if it is stored."""

    def spoil(self, step: str) -> None:
        """Lose the content of a step's layer, which stays listed; evict it if that cannot be."""

    def garble(self, image: str) -> None:
        """Export an index of an image that no builder can read."""

    def passes(self, hours: int) -> None:
        """Let time pass."""

    def run(self, how: How, actions: Actions) -> Report:
        """Do a run of the first owner."""

    def run_two(self, first: How, second: How, step: int) -> list[Report]:
        """Do a run of each owner: the second one begins before this step of the first."""

    def keep(self) -> Callable[[], None]:
        """Keep what a process leaves that is killed now: the cache, and the first owner's database.

        Returns what puts all of it back.
        """

    def problems(self) -> list[str]:
        """Return the promises that runs have broken so far, seen step by step."""

    def stored(self) -> set[str]:
        """Return the layers that are stored."""

    def departed(self) -> set[str]:
        """Return the layers that have left to make room, by the memories of both owners."""

    def usable(self, image: str) -> set[str]:
        """Return the layers that builders of this image find; none if there is no index."""

    def everything(self) -> object:
        """Return all that is stored, to the byte."""


def departed_from(memories: Sequence[Memory]) -> set[str]:
    """Return the blobs that have left, by what runs remember."""
    left: set[str] = set()
    for memory in memories:
        with memory.database.reading() as connection:
            left.update(connection.scalars(_DEPARTED))
    return left


_DEPARTED = select(BLOB.c.digest).where(BLOB.c.departure.is_not(None))


def steps_up_to(step: str) -> list[str]:
    """Return the steps that a build of this one does, the lowest first."""
    below = _BELOW[step]
    return [*(steps_up_to(below) if below else ()), step]


def collections_of(one: object, *, but: str = "") -> dict[str, Any]:
    """Copy the collections that an object holds, by attribute; for `keep`, which puts them back."""
    held = {name: value for name, value in vars(one).items() if name != but}
    return {name: copy(one) for name, one in held.items() if isinstance(one, dict | list | set)}
