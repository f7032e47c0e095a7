"""What is asked of a large database takes in proportion to its rows: counted in steps of SQLite, or
in rows that PostgreSQL reads.

Each of these once read all rows of one table for each row of another one, or all rows of a table.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Connection

from maintainer.graph.arrivals import load_arrivals
from maintainer.graph.database import Database
from maintainer.graph.expire import expire
from maintainer.graph.memory import load_memory
from maintainer.graph.recall import count_expected
from maintainer.graph.summaries import load_trends
from maintainer.graph.trends import compare_with_previous
from maintainer.model.entry import Access
from tests.empty_database import make_empty, need_sqlite
from tests.integration.world import START
from tests.postgresql import create_database, opened, require_postgresql
from tests.snapshots import MAIN

_ABOUT_TWICE = 2.3
_FEW, _MANY = 400, 800
_DIGEST = "'sha256:' || printf('%064x', n)"
_TARGET = f"""
INSERT INTO target (id, name) VALUES (1, 'github:octo/app');
INSERT INTO ref (id, target_id, name, readable, writable) VALUES (1, 1, '{MAIN}', 1, 1);
"""
_MISSING_BLOBS = f"""
INSERT INTO blob (target_id, digest, first_seen_at, is_found, missing_since)
SELECT 1, {_DIGEST}, 1, 0, 2 FROM numbers;
"""
_ENTRIES = f"""
INSERT INTO entry (target_id, ref_id, store_id, key, kind, digest, size, created_at, used_at,
                   last_accessed_at, first_seen_at, missing_since, state, reason, facts)
SELECT 1, 1, n, 'buildkit-blob-1-' || {_DIGEST}, 'blob', {_DIGEST}, 1, 1, 1, 1, 1, NULL, 'new',
       'not_marked', '{{"code":"not_marked"}}' FROM numbers;
"""
_GONE_ENTRIES = f"{_ENTRIES} UPDATE entry SET missing_since = 2, state = 'deleted';"
_UNLISTED_BLOBS = f"{_MISSING_BLOBS} UPDATE blob SET digest = 'sha512:' || id;"
_RUNS = """
INSERT INTO run (id, target_id, started_at, version, process, dry_run, has_plan, status, entries,
                 indexes_read, indexes_written, entries_deleted, bytes_freed, blobs_missing,
                 requests)
SELECT n, 1, n, '1', '1', 0, 1, 'killed', 0, 0, 0, 1, 1, 0, 1 FROM numbers;
"""
_DELETIONS = f"""
INSERT INTO action (run_id, position, kind, subject, ref, store_id, size, reason, facts, outcome,
                    outcome_facts)
SELECT 1, n, 'delete', 'key', '{MAIN}', -n, 1, 'unreferenced', '{{"code":"unreferenced"}}',
       'planned', '{{"code":"planned"}}' FROM numbers;
"""
_KEEPS = f"""
INSERT INTO keep (target_id, first_run, subject, ref, store_id, size, reason, facts)
SELECT 1, 1, 'key', '{MAIN}', n, 1, 'needed', '{{"code":"needed"}}' FROM numbers;
"""
_PAST_SCOPES = f"""
INSERT INTO scope (id, target_id, name) SELECT n, 1, n FROM numbers;
INSERT INTO scope (target_id, name) SELECT 1, 'past ' || n FROM numbers;
INSERT INTO generation (target_id, scope_id, ref_id, key, number, signed, content_digest, records,
                        results, first_seen_at)
SELECT 1, n, 1, n, 1, 0, {_DIGEST}, 0, 0, 1 FROM numbers;
"""
_LAST_DELETIONS = """
SELECT subject, ref, size, reason, facts FROM actions WHERE kind = 'delete' AND outcome = 'planned'
AND run = (SELECT max(run) FROM actions WHERE kind = 'delete' AND outcome = 'planned')
"""


def _count_steps(path: Path, number: int, rows: str, job: Callable[[Connection], object]) -> int:
    """Make a file with so many rows of some kinds; return how many steps a job takes there."""
    make_empty(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TEMP TABLE numbers (n INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO numbers VALUES (?)", ((n + 1,) for n in range(number)))
        connection.executescript(_TARGET + rows)
    steps = count()
    with closing(Database(f"sqlite:///{path}")) as database, database.reading() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(lambda: next(steps) < 0, 10)
        job(connection)
        driver.set_progress_handler(None, 0)
    return next(steps)


def _ask(query: str) -> Callable[[Connection], object]:
    return lambda connection: connection.exec_driver_sql(query).all()


def _expect(connection: Connection) -> object:
    return count_expected(connection, 1, Access(readable=frozenset({MAIN})))


@pytest.mark.parametrize(
    ("rows", "job"),
    [
        pytest.param(_MISSING_BLOBS + _GONE_ENTRIES, lambda c: load_memory(c, 1), id="evictions"),
        pytest.param(_ENTRIES + _RUNS + _DELETIONS, _expect, id="a killed run"),
        pytest.param(
            _UNLISTED_BLOBS + _ENTRIES, _ask("SELECT count(*) FROM blobs"), id="the view of blobs"
        ),
        pytest.param(
            _KEEPS + _RUNS + _DELETIONS, _ask(_LAST_DELETIONS), id="the last deletions of all"
        ),
        pytest.param(
            _KEEPS + _RUNS, _ask("SELECT subject FROM actions WHERE run = 1"), id="one run of many"
        ),
        pytest.param(
            _PAST_SCOPES, lambda c: expire(c, 1, START, timedelta(days=1)), id="scopes of the past"
        ),
    ],
)
def test_twice_the_rows_take_about_twice_the_steps(
    tmp_path: Path, rows: str, job: Callable[[Connection], object]
) -> None:
    need_sqlite()

    few, many = (_count_steps(tmp_path / "m.db", number, rows, job) for number in (_FEW, _MANY))

    assert many > _MANY / 10
    assert many < _ABOUT_TWICE * few


def test_what_a_run_kept_comes_after_what_it_did_in_the_view_of_actions(tmp_path: Path) -> None:
    need_sqlite()
    found: list[str] = []

    def read(connection: Connection) -> None:
        kinds = "SELECT kind FROM actions WHERE run = 1 ORDER BY position"
        found.extend(connection.exec_driver_sql(kinds).scalars())

    _count_steps(tmp_path / "m.db", 3, _KEEPS + _RUNS + _DELETIONS, read)

    assert found == ["delete", "delete", "delete", "keep", "keep", "keep"]


# Of a server, thousands of targets share the tables.

_TARGETS, _RUNS_OF_EACH, _STATES = 500, 100, 4
_FLEET = f"""
INSERT INTO target (id, name) SELECT n, 'github:octo/' || n FROM generate_series(1, {_TARGETS}) n;
INSERT INTO run (id, target_id, started_at, finished_at, version, process, dry_run, has_plan,
                 status, entries, indexes_read, indexes_written, entries_deleted, bytes_freed,
                 blobs_missing, requests)
SELECT (k - 1) * {_TARGETS} + n, n, k, k, '1', '1', false, false, 'done', 0, 0, 0, 0, 0, 0, 1
FROM generate_series(1, {_TARGETS}) n, generate_series(1, {_RUNS_OF_EACH}) k;
INSERT INTO run_state SELECT run.id, state, 1, 1 FROM run, generate_series(1, {_STATES}) state;
ANALYZE;
"""
_LAST = _TARGETS * (_RUNS_OF_EACH - 1) + 5
"""The last run on the fifth target."""
_ROWS_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)
FROM pg_stat_xact_user_tables WHERE relname IN ('run', 'run_state')
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Database]:
    """Return a database of many targets, each with many runs."""
    require_postgresql()
    with opened(create_database()) as database:
        with database.begin() as connection:
            connection.exec_driver_sql(_FLEET)
        yield database


@pytest.mark.parametrize(
    ("job", "most"),
    [
        pytest.param(
            lambda c: compare_with_previous(c, 5, _LAST, START), 2_000, id="the previous run"
        ),
        pytest.param(lambda c: load_arrivals(c, 5, _LAST, START), 2_000, id="arrivals"),
        # It may read all runs, but once, and the states of few.
        pytest.param(
            lambda c: load_trends(c, [f"github:octo/{n}" for n in range(50)]), 100_000, id="trends"
        ),
    ],
)
def test_what_concerns_one_target_reads_little_of_all_others(
    fleet: Database, job: Callable[[Connection], object], most: int
) -> None:
    with fleet.reading() as connection:
        assert job(connection)

        read = connection.exec_driver_sql(_ROWS_READ).scalar_one()

    assert 0 < read < most
