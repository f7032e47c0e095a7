"""Searches the places of `[[discover]]`, and makes targets of what they contain.

A place whose search fails keeps the targets that it had.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from pydantic import ValidationError

from maintainer.errors import ClockError, MaintainerError, StoreError
from maintainer.graph.clock import check_clock
from maintainer.graph.database import Database
from maintainer.graph.discovered import (
    Recorded,
    Search,
    drop_history,
    load_found,
    record_search,
    retire_others,
)
from maintainer.model.discovery import FoundCache, name_target
from maintainer.report.words import format_count
from maintainer.sanitize import loggable, printable
from maintainer.settings import DiscoverSettings, Settings, TargetSettings, api_url_of
from maintainer.stores.discovery import make_target
from maintainer.stores.kinds import blobs_of, check_apart, discoverer_of, indexes_of
from maintainer.validation import explain

_MAX_FOUND = 100_000
"""Caches of one place; a place that claims more is not believed."""
_MAX_LOGGED = 10
"""Names that are not valid."""
_MAX_NAME = 512
"""Characters of a name."""

log = logging.getLogger(__name__)

Found = Mapping[str, Sequence[FoundCache]]
"""The caches of each discovery, by its name."""


@dataclass(frozen=True, slots=True)
class IgnoredCache:
    """A cache that was found, and becomes no target."""

    discovery: str
    name: str
    """It may contain anything."""
    reason: str


@dataclass(frozen=True, slots=True)
class DiscoveredTarget:
    """The settings of a target that was found."""

    discovery: str
    settings: TargetSettings

    @property
    def place(self) -> str:
        """Where its cache is, for people."""
        return self.settings.repository or self.settings.store


@dataclass(slots=True)
class Selection:
    """What becomes of the caches that were found."""

    targets: list[DiscoveredTarget] = field(default_factory=list)
    ignored: list[IgnoredCache] = field(default_factory=list)


def sources_of(settings: Settings) -> dict[str, str]:
    """Return what identifies each discovery and its place, by name. Raises UsageError."""
    return {table.name: _source(table) for table in settings.discover}


def places_of(settings: Settings) -> list[list[DiscoverSettings]]:
    """Return the tables of `[[discover]]`, those together that search the same place."""
    places: dict[tuple[str, ...], list[DiscoverSettings]] = {}
    for table in settings.discover:
        places.setdefault(discoverer_of(table).source(table), []).append(table)
    return list(places.values())


def _source(table: DiscoverSettings) -> str:
    """Return a digest, because a URL may contain a secret.

    The name is a part of it: several tables may search one place with tokens that see different
    caches, and none may retire what only another one sees.
    """
    place = json.dumps([table.name, *discoverer_of(table).source(table)])
    return hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()


async def search(table: DiscoverSettings) -> Search:
    """Search a place. An error is part of the result. Raises UsageError if the table is invalid."""
    discoverer = discoverer_of(table)
    found: dict[tuple[str, str], FoundCache] = {}
    invalid: list[str] = []
    problem = None
    try:
        async for one in discoverer.search(table):
            if len(found) + len(invalid) >= _MAX_FOUND:
                raise StoreError(f"there are more than {_MAX_FOUND:,} caches: use several tables")
            if is_valid(one):
                found[one.store, one.repository] = one
            else:
                invalid.append(one.name)
    except MaintainerError as error:
        problem = str(error)
    for name in invalid[:_MAX_LOGGED]:
        log.warning("discovery %s ignores %s: its name is not valid", table.name, loggable(name))
    if len(invalid) > _MAX_LOGGED:
        log.warning("discovery %s ignores %d such names", table.name, len(invalid))
    return Search(table.name, _source(table), tuple(found.values()), problem)


def is_valid(found: FoundCache) -> bool:
    """Whether texts that others have chosen can be stored and shown as they are."""
    texts = (found.name, found.store, found.repository)
    return bool(found.name) and all(printable(text, limit=_MAX_NAME) == text for text in texts)


def select(settings: Settings, found: Found) -> Selection:
    """Choose which caches become targets.

    The tables `[[targets]]` come first, then those of `[[discover]]`, in their order: a cache
    belongs to the first of them.
    """
    selection = Selection()
    taken = {key: f"target {one.name}" for one in settings.targets for key in _keys(one)}
    names = {one.name for one in settings.targets}
    indexes = {
        place: f"target {one.name}" for one in settings.targets for place in indexes_of(one.store)
    }
    for table in settings.discover:
        for one in sorted(found.get(table.name, ()), key=lambda one: one.name):
            chosen = _choose(table, one, taken, names, indexes)
            if isinstance(chosen, str):
                selection.ignored.append(IgnoredCache(table.name, one.name, chosen))
                continue
            names.add(chosen.name)
            taken |= dict.fromkeys(_keys(chosen), f"target {chosen.name}")
            selection.targets.append(DiscoveredTarget(table.name, chosen))
    return selection


def _choose(
    table: DiscoverSettings,
    found: FoundCache,
    taken: Mapping[str, str],
    names: set[str],
    indexes: Mapping[tuple[str, ...], str],
) -> TargetSettings | str:
    """Return the target for a cache, or why there is none."""
    if not any(fnmatchcase(found.name, pattern) for pattern in table.include):
        return "include does not match"
    for pattern in table.exclude:
        if fnmatchcase(found.name, pattern):
            return f"exclude has {printable(pattern)}"
    name = name_target(table.name, found.name)
    if name in names:
        return f"there is another target {name}"
    try:
        target = make_target(table, name, found)
        keys = _keys(target)
        if not any(key in taken for key in keys):
            check_apart("store", indexes_of(target.store), indexes)
    except ValidationError as error:
        return explain(error.errors(include_url=False)[0])
    except MaintainerError as error:
        return str(error)
    return next((f"it is the cache of {taken[key]}" for key in keys if key in taken), target)


def _keys(target: TargetSettings) -> list[str]:
    """Return what two targets must not have in common."""
    if target.repository:
        return [f"{api_url_of(target)} {target.repository}".lower().replace("/ ", " ")]
    blobs = blobs_of(target.store)
    return [target.store, *([json.dumps(blobs)] if blobs else [])]


def load_recorded(database: Database, settings: Settings) -> Found:
    """Return what was found, according to the database."""
    sources = sources_of(settings)
    with database.reading() as connection:
        found = load_found(connection, sources.values())
    return {name: found[source] for name, source in sources.items()}


def record(
    database: Database, searches: Sequence[Search], clock: Callable[[], datetime]
) -> Mapping[str, Recorded]:
    """Record searches, all at once; return what each has changed, by the name of the discovery.

    With a wrong clock nothing is recorded: it decides what has been gone for how long.
    """
    try:
        check_clock(database, clock)
    except ClockError as error:
        changes = {one.name: Recorded(problem=str(error)) for one in searches}
    else:
        now = clock()
        with database.begin() as connection:
            changes = {one.name: record_search(connection, one, now) for one in searches}
    for name, one in changes.items():
        _log(name, one)
    return changes


def _log(name: str, changes: Recorded) -> None:
    if changes.problem:
        log.error("discovery %s: %s; no target is retired", name, changes.problem)
    if changes.new or changes.gone:
        new = format_count(changes.new, "cache")
        log.info("discovery %s: %s new, %s gone", name, new, changes.gone)


def retire(database: Database, settings: Settings, clock: Callable[[], datetime]) -> None:
    """Retire what was found in places that are not configured any more, and forget old history.

    With a wrong clock both wait: a month could be over at once.
    """
    try:
        check_clock(database, clock)
    except ClockError as error:
        log.error("no target is retired, and no history forgotten: %s", error)  # noqa: TRY400
        return
    now = clock()
    with database.begin() as connection:
        retire_others(connection, sources_of(settings), now)
    with database.begin() as connection:
        dropped = drop_history(connection, now)
    for name in dropped:
        log.info("%s has been gone for a month: its history is forgotten", printable(name))
