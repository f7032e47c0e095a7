"""A rate limit in a database of a server: what processes take of it, and when it is forgotten."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from maintainer.graph.allowances import exchange, load_limits
from maintainer.graph.clock import load_now
from maintainer.graph.database import Database
from maintainer.graph.tables import ALLOWANCE
from maintainer.model.allowance import Heard
from maintainer.stores.http.requests import name_limit
from maintainer.stores.http.shared_limit import Asked, Granted
from tests.postgresql import create_database, opened, require_postgresql

HOUR = timedelta(hours=1)
FIRST = Heard(most=60, remaining=60, resets_in=HOUR)


@pytest.fixture
def database() -> Iterator[Database]:
    require_postgresql()
    with opened(create_database()) as database:
        yield database


def _ask(database: Database, heard: Heard, number: int = 1, name: str = "octo") -> Granted:
    with database.begin() as connection:
        return exchange(connection, name, heard, Asked(number, is_needed=True))


def _names(database: Database) -> list[str]:
    with database.reading() as connection:
        return sorted(connection.scalars(select(ALLOWANCE.c.name)))


def _age(database: Database, by: timedelta) -> None:
    """Let every limit be reset in the past."""
    with database.begin() as connection:
        connection.execute(update(ALLOWANCE).values(reset_at=load_now(connection) - by))


def test_processes_that_ask_at_once_take_no_more_than_remains(database: Database) -> None:
    _ask(database, FIRST, 0)

    with ThreadPoolExecutor(4) as pool:
        granted = list(pool.map(lambda _: _ask(database, Heard()), range(70)))

    assert sum(one.number for one in granted) == 60
    assert all(one.wait for one in granted if not one.number)


def test_what_a_killed_process_has_taken_is_there_again_after_the_reset(
    database: Database,
) -> None:
    assert _ask(database, FIRST, 60).number == 60  # Nobody ever says what became of them.
    assert _ask(database, Heard()).wait > HOUR / 2
    _age(database, timedelta(seconds=1))

    assert _ask(database, Heard(), 60).number == 60


def test_limits_that_nobody_uses_any_more_are_forgotten(database: Database) -> None:
    _ask(database, FIRST, name="old")
    _age(database, timedelta(days=2))
    _ask(database, Heard(), name="without a limit")
    _ask(database, FIRST, name="used")
    _ask(database, Heard(pause=HOUR), name="paused")

    _ask(database, Heard(), name="new")

    assert _names(database) == ["new", "paused", "used"]


def test_a_limit_that_was_forgotten_begins_anew(database: Database) -> None:
    held = _ask(database, Heard(), name="without a limit")
    _ask(database, Heard(), name="new")
    assert _names(database) == ["new"]

    again = _ask(database, Heard(held.resets, answered=1), name="without a limit")

    assert again.number == 1


def test_a_pause_is_known_to_whoever_begins_a_run(database: Database) -> None:
    _ask(database, Heard(pause=HOUR), 0)

    with database.reading() as connection:
        assert load_limits(connection).are_exhausted("octo", 1.0)
        assert not load_limits(connection).are_exhausted("other", 1.0)


def test_the_name_of_a_limit_does_not_show_the_token() -> None:
    name = name_limit("https://api.github.com", "ghp_secret")

    assert "secret" not in name
    assert len(name) == 64
