"""The caches that searches have found, and the history of those that are gone."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, or_, select, update

from maintainer.graph.dialect import insert_or_update
from maintainer.graph.rows import execute_each
from maintainer.graph.tables import DISCOVERED, DISCOVERY, RUN, SCHEDULED, TARGET
from maintainer.model.discovery import FoundCache, name_target

_KEPT_FOR = timedelta(days=30)
"""How long the history of a cache is kept that is gone."""
_DOUBTED_FOR = timedelta(days=1)
"""How long a search is not believed that finds too little: a disk may not be mounted."""


class DiscoveryStatus(msgspec.Struct, frozen=True):
    """The last search of a place. Its JSON names are stable."""

    name: str
    searched_at: datetime
    completed_at: datetime | None
    """When a search last found everything."""
    problem: str | None
    """Why the last one may not have: then no target was retired."""


class Search(msgspec.Struct, frozen=True):
    """The result of a search."""

    name: str
    """Of the discovery."""
    source: str
    """A digest of the discovery and its place."""
    found: Sequence[FoundCache]
    problem: str | None
    """Why these may not be all, if so."""


class Recorded(msgspec.Struct, frozen=True):
    """What a search has changed."""

    new: int = 0
    gone: int = 0
    problem: str | None = None


def load_discoveries(connection: Connection) -> list[DiscoveryStatus]:
    """Return the last search of each place."""
    rows = connection.execute(select(DISCOVERY).order_by(DISCOVERY.c.name))
    return [
        DiscoveryStatus(row.name, row.searched_at, row.completed_at, row.problem) for row in rows
    ]


def load_found(connection: Connection, sources: Collection[str]) -> dict[str, list[FoundCache]]:
    """Return the caches that are not gone, by the place in which they were found."""
    found: dict[str, list[FoundCache]] = {source: [] for source in sources}
    for row in connection.execute(_ACTIVE):
        if row.source in found:
            found[row.source].append(FoundCache(row.name, row.store, row.repository))
    return found


def record_search(connection: Connection, search: Search, now: datetime) -> Recorded:
    """Record what a search has found. What is not found is gone, if the search found everything.

    In doubt all stay: a search that finds less than half of what was there is believed after a day.
    """
    known = {
        (row.store, row.repository): row
        for row in connection.execute(_OF_SOURCE, {"of_source": search.source})
    }
    active = {key for key, row in known.items() if row.gone_since is None}
    found = {(one.store, one.repository): one for one in search.found}
    missing = active - found.keys()
    problem, doubted_since = search.problem, None
    if problem is None and len(missing) > len(active) / 2:
        doubted_since = connection.execute(_DOUBTED, {"of_name": search.name}).scalar() or now
        if now - doubted_since < _DOUBTED_FOR:
            problem = f"it finds only {len(active) - len(missing)} of the {len(active)} it knows"
    new = [one for key, one in found.items() if key not in active or known[key].name != one.name]
    _save(connection, search.source, new, now)
    gone = [] if problem else [known[key] for key in missing]
    _retire(connection, search.name, gone, now)
    values = {
        "source": search.source,
        "searched_at": now,
        "problem": problem,
        "doubted_since": doubted_since if problem else None,
    }
    if problem is None:
        values["completed_at"] = now
    statement = insert_or_update(DISCOVERY, ["name"], values)
    connection.execute(statement.values(values | {"name": search.name}))
    return Recorded(len(found.keys() - active), len(gone), problem)


def retire_others(connection: Connection, sources: Mapping[str, str], now: datetime) -> None:
    """Retire what was found in places that are not searched any more; `sources` are, by name."""
    for row in connection.execute(select(DISCOVERY)).all():
        if sources.get(row.name) == row.source:
            continue
        rows = connection.execute(_OF_SOURCE, {"of_source": row.source}).all()
        if row.source not in sources.values():
            _retire(connection, row.name, [one for one in rows if one.gone_since is None], now)
        connection.execute(delete(DISCOVERY).where(DISCOVERY.c.name == row.name))


def drop_history(connection: Connection, now: datetime) -> list[str]:
    """Forget what has been gone for a month; return the names of the caches whose history goes.

    The history of a cache stays if a target or a run has had to do with it since.
    """
    rows = connection.execute(_OLD, {"before": now - _KEPT_FOR}).all()
    dropped: list[str] = []
    for row in rows:
        here = {"of_name": row.target, "gone_since": row.gone_since}
        dropped += connection.execute(_DROP, here).scalars() if row.target else ()
        connection.execute(_FORGET, _key(row))
    return dropped


def _save(connection: Connection, source: str, found: Iterable[FoundCache], now: datetime) -> None:
    rows = [
        {
            "source": source,
            "store": one.store,
            "repository": one.repository,
            "name": one.name,
            "found_at": now,
            "gone_since": None,
            "target": None,
        }
        for one in found
    ]
    execute_each(connection, _SAVE, rows)


def _retire(connection: Connection, discovery: str, gone: Iterable[Any], now: datetime) -> None:
    rows = [_key(row) | {"now": now, "served_as": name_target(discovery, row.name)} for row in gone]
    execute_each(connection, _RETIRE, rows)


def _key(row: Any) -> dict[str, object]:  # noqa: ANN401 - a row of any statement
    return {"of_source": row.source, "of_store": row.store, "of_repository": row.repository}


_ACTIVE = (
    select(DISCOVERED)
    .where(DISCOVERED.c.gone_since.is_(None))
    .order_by(DISCOVERED.c.source, DISCOVERED.c.name)
)
_OF_SOURCE = select(DISCOVERED).where(DISCOVERED.c.source == bindparam("of_source"))
_DOUBTED = select(DISCOVERY.c.doubted_since).where(DISCOVERY.c.name == bindparam("of_name"))
_SAVE = insert_or_update(
    DISCOVERED, ["source", "store", "repository"], ["name", "gone_since", "target"]
)
_is = (
    DISCOVERED.c.source == bindparam("of_source"),
    DISCOVERED.c.store == bindparam("of_store"),
    DISCOVERED.c.repository == bindparam("of_repository"),
)
# Its target is still scheduled: that is where the name of its part of the graph is.
_RETIRE = (
    update(DISCOVERED)
    .where(*_is)
    .values(
        gone_since=bindparam("now"),
        target=select(SCHEDULED.c.target)
        .where(SCHEDULED.c.name == bindparam("served_as"))
        .scalar_subquery(),
    )
)
_FORGET = delete(DISCOVERED).where(*_is)
_OLD = select(DISCOVERED).where(DISCOVERED.c.gone_since < bindparam("before"))
_DROP = (
    delete(TARGET)
    .where(
        TARGET.c.name == bindparam("of_name"),
        ~exists().where(SCHEDULED.c.target == TARGET.c.name),
        ~exists().where(
            RUN.c.target_id == TARGET.c.id,
            or_(RUN.c.status == "running", RUN.c.started_at > bindparam("gone_since")),
        ),
    )
    .returning(TARGET.c.name)
)
