"""A PostgreSQL database: opened, shared by runs, and what goes wrong, without a secret."""

import asyncio
import logging
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, event, insert, select, text
from typer.testing import CliRunner

from maintainer.cli.app import app
from maintainer.database_url import check_database
from maintainer.errors import DatabaseError, MaintainerError, how_to_install
from maintainer.graph import postgresql
from maintainer.graph.actions import number_actions
from maintainer.graph.database import Database
from maintainer.graph.migrate import migrate
from maintainer.graph.postgresql import (
    QUEUE,
    configuring,
    driver_arguments,
    lock_until_the_end,
)
from maintainer.graph.recall import count_expected
from maintainer.graph.record import find_target
from maintainer.graph.revision import NEWEST
from maintainer.graph.rows import Ids
from maintainer.graph.runs import begin_run, end_killed_runs, targets_running
from maintainer.graph.schedule import load_statuses
from maintainer.graph.tables import ACTION, BLOB, METADATA, RUN, SCOPE, TARGET
from maintainer.graph.written import forget_written
from maintainer.model.entry import Access
from maintainer.model.outcome import Planned
from maintainer.model.reason import ReadByBuilds, code_of
from maintainer.serve.web.server import PageServer
from maintainer.settings import ServeSettings
from tests.commands import run_here
from tests.integration.directories import a_directory
from tests.integration.service import wait_until
from tests.integration.world import MAIN, a_world
from tests.postgresql import PASSWORD, Server, create_database, opened, require_postgresql, server
from tests.snapshots import NOW

_ENCODED = quote(PASSWORD, safe="")


@pytest.fixture(scope="session", autouse=True)
def place() -> Server:
    """Have a server with a guest, who may connect and read nothing."""
    require_postgresql()
    found = server()
    found.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    return found


@pytest.fixture
def database() -> Iterator[Database]:
    with opened(create_database()) as database:
        yield database


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


# Revisions.


def test_several_processes_migrate_an_empty_database_once() -> None:
    url = create_database(empty=True)

    def upgrade(_: int) -> str | None:
        with opened(url) as database:
            database.upgrade()
            return database.revision()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(upgrade, range(4))) == [NEWEST] * 4
    with opened(url) as database, database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_a_new_database_equals_the_one_that_alembic_makes() -> None:
    new, migrated = create_database(empty=True), create_database(empty=True)

    with opened(new) as database:
        database.upgrade()
    with opened(migrated) as database, database.begin() as connection:
        assert migrate(connection)

    assert _schema(new) == _schema(migrated)


def _schema(url: str) -> list[list[tuple[object, ...]]]:
    """Return all columns, keys and indexes, views, sequences, and the revision."""
    with opened(url) as database, database.reading() as connection:
        return [[tuple(row) for row in connection.execute(text(sql))] for sql in _SCHEMA]


_SCHEMA = (
    """
    SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default,
           collation_name
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 3
    """,
    """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
    """,
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1",
    "SELECT sequencename, data_type::text FROM pg_sequences ORDER BY 1",
    "SELECT version_num FROM alembic_version",
)


def test_tables_of_other_programs_are_no_obstacle() -> None:
    url = create_database(empty=True)
    server().execute("CREATE TABLE moz_bookmarks (url TEXT)", _name(url))

    with opened(url) as database:
        database.upgrade()
        assert database.revision() == NEWEST


@pytest.mark.parametrize("table", ["run (distance INTEGER)", "alembic_version (version_num TEXT)"])
def test_tables_of_other_programs_with_our_names_are_left_alone(table: str) -> None:
    taken = create_database(empty=True)
    server().execute(f"CREATE TABLE {table}", _name(taken))

    with opened(taken) as database, pytest.raises(DatabaseError, match="belongs to another"):
        database.upgrade()


def test_a_newer_one_is_left_alone(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(DatabaseError, match="made by a newer version: upgrade maintainer"):
        database.upgrade()


# Trouble.


def _in_no_server(_: Server) -> str:
    return f"postgresql+psycopg://guest:{_ENCODED}@127.0.0.1:1/graph"


def _with_a_wrong_password(place: Server) -> str:
    return place.loopback_url(_name(create_database()), "guest", f"{_ENCODED}x")


def _without_a_password(place: Server) -> str:
    url = place.loopback_url(_name(create_database()), "guest", "")
    return url.replace("guest:@", "guest@")


def _of_no_name(place: Server) -> str:
    return place.loopback_url("nowhere", "guest", _ENCODED)


def _without_a_right(place: Server) -> str:
    return place.loopback_url(_name(create_database(empty=True)), "guest", _ENCODED)


def _without_a_right_to_read(place: Server) -> str:
    return place.loopback_url(_name(create_database()), "guest", _ENCODED)


def _without_names(place: Server) -> str:
    place.execute("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C'")
    return place.url("ascii")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_in_no_server, "no server answers there"),
        (_with_a_wrong_password, "the server refused the user or the password"),
        (_without_a_password, "the server asked for a password: put it into the URL or PGPASSWORD"),
        (_of_no_name, "there is no such database or user on the server: create it"),
        (_without_a_right, "permission denied for schema public: grant it to this user"),
        (_without_a_right_to_read, "permission denied for table .*: grant it to this user"),
        (_without_names, "has the encoding SQL_ASCII: create one with UTF8"),
    ],
)
def test_trouble_is_one_line_without_the_password(
    place: Server,
    make: Callable[[Server], str],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    url = make(place)

    with opened(url) as database, pytest.raises(DatabaseError, match=problem) as caught:
        _upgrade_and_read(database)

    said = str(caught.value)
    assert said.startswith("the database postgresql+psycopg://")
    assert "\n" not in said
    for secret in (PASSWORD, _ENCODED):
        assert secret not in said + caplog.text
        assert secret not in repr(caught.getrepr(chain=False))


def _upgrade_and_read(database: Database) -> None:
    database.upgrade()
    with database.reading() as connection:
        load_statuses(connection)


@pytest.mark.parametrize(
    "command",
    [
        ["report"],
        ["runs", "--json"],
        ["why", "something"],
        ["db", "current"],
        ["db", "upgrade"],
        ["schedule"],
        ["doctor"],
        ["config", "show"],
        ["config", "show", "--json"],
        ["gc", "--store", "local:nowhere", "--verbose"],
    ],
    ids=" ".join,
)
def test_no_command_shows_the_password(command: list[str]) -> None:
    url = f"postgresql://guest:{_ENCODED}@127.0.0.1:1/graph"

    result = CliRunner().invoke(app, [*command, "--database", url])

    shown = result.output + str(result.exception)
    assert isinstance(result.exception, MaintainerError | SystemExit | None)
    assert _ENCODED not in shown
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql://host",
        "postgresql://host/",
        "postgresql://user:s3cr3t/word@host/graph",
        "postgresql://user:s3cr3t/graph",
        "postgresql://user@host:s3cr3t/graph",
        " postgresql://user:s3cr3t@host/graph",
        "postgresql://user:s3cr3t@@host/graph",
        "postgresql://host/graph?password=s3cr3t",
        "postgresql://host/graph?sslmode=require&password=s3cr3t",
        "postgresql+asyncpg://user:s3cr3t@host/graph",
        "mysql://user:s3cr3t@host/graph",
        "postgresql://user:s3cr3t@host/gr\0aph",
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="is not a valid") as caught:
        check_database(url)

    assert "s3cr3t" not in str(caught.value)


_OURS = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('run', 'alembic_version')"


@pytest.mark.parametrize("where", ["role", "url"])
def test_the_schema_that_is_set_for_the_user_or_in_the_url_is_used(
    place: Server, where: str
) -> None:
    url = create_database(empty=True)
    place.execute("CREATE SCHEMA ci", _name(url))
    if where == "role":
        place.execute(f"ALTER ROLE owner IN DATABASE {_name(url)} SET search_path = ci")
    else:
        url = check_database(f"{url}&options=-csearch_path%3Dci")

    with opened(url) as database:
        database.upgrade()
        with database.reading() as connection:
            assert connection.execute(text(_OURS)).scalars().all() == ["ci"]


# What connections set.


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
def test_transactions_that_write_wait_for_each_other_whatever_the_server_has_set(
    place: Server, isolation: str
) -> None:
    url = create_database()
    place.execute(f"ALTER DATABASE {_name(url)} SET default_transaction_isolation = '{isolation}'")

    with opened(url) as database:
        # A connection that has read, or held a lock, is used again.
        for _ in range(2):
            with database.begin() as connection:
                assert _show(connection, "transaction_isolation") == "read committed"
            with database.reading() as connection:
                assert _show(connection, "transaction_isolation") == "repeatable read"
            with database.lease("a"):
                pass
        with database._backend.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            assert _show(connection, "transaction_isolation") == "read committed"


def _show(connection: Connection, setting: str) -> str:
    return str(connection.exec_driver_sql(f"SHOW {setting}").scalar_one())


def test_connections_set_what_they_need_by_themselves_as_a_pooler_refuses_startup_options(
    database: Database,
) -> None:
    with database.begin() as connection:
        driver = connection.connection.driver_connection
        assert driver
        assert "options" not in driver.info.get_parameters()
        driver.rollback()  # What was set stays.
        assert _show(connection, "idle_in_transaction_session_timeout") == "2min"
        assert _show(connection, "lock_timeout") == "30s"


def test_connections_of_the_queue_set_what_they_need_by_themselves(place: Server) -> None:
    url = create_database()
    place.execute(f"ALTER DATABASE {_name(url)} SET default_transaction_isolation = 'serializable'")

    for autocommit in (False, True):  # as in its pool, and as when it listens
        shown = asyncio.run(_settings_of_the_queue(url, autocommit=autocommit))

        assert shown == {
            "search_path": "some_schema",
            "transaction_isolation": "read committed",
            "idle_in_transaction_session_timeout": "2min",
            "lock_timeout": "30s",
        }


async def _settings_of_the_queue(url: str, *, autocommit: bool) -> dict[str, str]:
    arguments = driver_arguments(url)
    assert "options" not in arguments
    names = [
        "search_path",
        "transaction_isolation",
        "idle_in_transaction_session_timeout",
        "lock_timeout",
    ]
    async with await psycopg.AsyncConnection.connect(**arguments, autocommit=autocommit) as opened:
        await configuring("some_schema")(opened)
        assert opened.info.transaction_status == TransactionStatus.IDLE
        found = [await (await opened.execute(f"SHOW {name}")).fetchone() for name in names]
    return {name: row[0] for name, row in zip(names, found, strict=True) if row}


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"])
def test_a_url_may_be_spelled_as_others_spell_it(scheme: str) -> None:
    assert check_database(f"{scheme}://u@h/graph") == "postgresql+psycopg://u@h/graph"


def test_without_psycopg_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from maintainer.__main__ import main\n"
        "sys.argv = ['maintainer', 'runs', '--database', 'postgresql://u:s3cr3t@h/graph']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False, timeout=60
    )

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("maintainer: PostgreSQL needs the extra postgresql (psycopg is missing)")
    assert line.endswith(f": {how_to_install('postgresql')}")


def _let_guest(place: Server, url: str, what: str) -> str:
    """Grant rights in a database to a guest; return the URL by which the guest opens it."""
    place.execute(f"GRANT {what} IN SCHEMA public TO guest", _name(url))
    return place.loopback_url(_name(url), "guest", _ENCODED)


def test_who_may_only_read_can_read_reports_and_is_told_that_runs_cannot_write(
    place: Server, tmp_path: Path
) -> None:
    url = create_database()
    as_guest = _let_guest(place, url, "SELECT ON ALL TABLES")

    checked = run_here(tmp_path, {}, "doctor", "--database", as_guest)

    assert "problem  database: " in checked.out
    assert "permission denied for table lease" in checked.out
    with opened(as_guest) as database:
        database.upgrade()
        with database.reading() as connection:
            assert load_statuses(connection) == []
        with (
            pytest.raises(DatabaseError, match="permission denied"),
            database.begin() as connection,
        ):
            find_target(connection, "github:octo/cache")


def test_doctor_says_what_a_run_is_not_allowed_to_do_and_leaves_nothing(
    place: Server, tmp_path: Path
) -> None:
    url = create_database()
    as_guest = _let_guest(place, url, "ALL ON ALL TABLES")

    denied = run_here(tmp_path, {}, "doctor", "--database", as_guest)
    _let_guest(place, url, "ALL ON ALL SEQUENCES")
    allowed = run_here(tmp_path, {}, "doctor", "--database", as_guest)

    assert "permission denied for sequence target_id_seq" in denied.out
    assert "can be used" in allowed.out
    with opened(url) as database, database.reading() as connection:
        assert connection.scalars(select(TARGET.c.name)).all() == []


def test_a_name_with_nul_is_refused_and_numbers_of_64_bits_are_not(database: Database) -> None:
    with pytest.raises(DatabaseError, match="a name contains NUL, which PostgreSQL cannot store"):
        _add_scope(database, "a\0b")

    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        begin_run(connection, target, NOW, dry_run=False)
        connection.execute(RUN.update().values(bytes_freed=2**63 - 1, entries=2**63 - 1))
        connection.execute(insert(RUN).from_select(_COPIED, select(*(RUN.c[n] for n in _COPIED))))
    with database.reading() as connection:
        assert connection.scalars(select(RUN.c.bytes_freed)).all() == [2**63 - 1] * 2
        assert connection.exec_driver_sql("SELECT sum(bytes_freed) FROM run").scalar() == 2**64 - 2


def test_a_name_that_is_too_long_for_an_index_is_refused_in_plain_words(database: Database) -> None:
    with pytest.raises(DatabaseError, match="a name, such as a tag, is too long for PostgreSQL"):
        _add_scope(database, secrets.token_hex(5_000))


@pytest.mark.parametrize("what", ["refused", "stored"])
def test_what_was_refused_and_what_is_stored_is_not_gone_through_for_each_row(
    database: Database, what: str
) -> None:
    """There is no limit to how much that is, but PostgreSQL has one to what a query may hold."""

    def ask(connection: Connection) -> None:
        if what == "refused":
            number_actions(connection, 1)
        else:
            forget_written(connection, 1, NOW)

    assert not [step for step in _plan(database, ask) if "SubPlan" in step]


def test_after_a_killed_sweep_of_a_million_its_plan_is_not_gone_through_for_each_entry(
    database: Database,
) -> None:
    with database.begin() as connection:
        target = find_target(connection, "s3:bucket/")
        run = begin_run(connection, target, NOW, dry_run=False)
        end_killed_runs(connection, target, NOW)
        _plan_deletions(connection, run, 1_000)
        connection.exec_driver_sql("ANALYZE")
        connection.exec_driver_sql(
            "UPDATE pg_class SET reltuples = 1000000 WHERE oid = 'action'::regclass"
        )

    plan = _plan(database, lambda connection: count_expected(connection, target, Access()))

    [look_up] = [step for step in plan if "Filter" in step and "SubPlan" in step]
    assert "hashed SubPlan" in look_up


def _plan_deletions(connection: Connection, run: int, count: int) -> None:
    reason, outcome = ReadByBuilds(), Planned()
    same = {
        "run_id": run,
        "kind": "delete",
        "ref": "-",
        "reason": code_of(reason),
        "facts": reason,
        "outcome": code_of(outcome),
        "outcome_facts": outcome,
    }
    rows = [
        same | {"position": number, "subject": f"{number}", "store_id": number}
        for number in range(count)
    ]
    connection.execute(insert(ACTION), rows)


def _plan(database: Database, ask: Callable[[Connection], object]) -> list[str]:
    """Return how the server carries out the one statement with which something is asked."""
    asked: list[tuple[str, Any]] = []
    with database.begin() as connection:

        @event.listens_for(connection, "before_cursor_execute")
        def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            asked.append((statement, values))

        ask(connection)
        [(statement, values)] = tuple(asked)
        return list(connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars())


@pytest.mark.parametrize("statement", ["PREPARE one AS SELECT 1", "EXECUTE another"])
def test_a_pooler_that_exchanges_connections_is_told_apart(
    database: Database, statement: str
) -> None:
    """Behind it, a prepared statement of another client exists, or one's own does not."""

    def execute_twice() -> None:
        with database.begin() as connection:
            for _ in range(2):
                connection.exec_driver_sql(statement)

    with pytest.raises(DatabaseError, match="use session pooling"):
        execute_twice()


def test_a_scope_of_the_token_with_nul_fails_no_run(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.build("base")
        variables = world.running.environment(MAIN, readable=["refs/heads/a\0b"])

        done = run_here(tmp_path, variables, "gc", "--database", create_database())

    assert done.status == 0, done.err


_COPIED = [one.name for one in RUN.columns if one.name != "id"]


def _add_scope(database: Database, name: str) -> None:
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        connection.execute(insert(SCOPE).values(target_id=target, name=name))


def test_a_server_that_is_started_again_is_used_again(place: Server, database: Database) -> None:
    with database.reading() as connection:
        load_statuses(connection)
    place.stop()
    with pytest.raises(DatabaseError, match=r"no server answers there|closed the connection"):
        database.revision()

    place.start()

    assert database.revision() == NEWEST


# Tables that another program has locked.


@contextmanager
def _locked(place: Server, url: str, table: str) -> Iterator[None]:
    """Hold a table as VACUUM FULL does."""
    with psycopg.connect(place.conninfo(_name(url))) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
_THREADS = 40
"""So many requests wait for the database at most; others wait for them."""


def test_a_service_whose_pages_all_wait_for_the_database_is_alive(place: Server) -> None:
    url = create_database()
    settings = ServeSettings(listen="127.0.0.1:0")
    with opened(url) as database, ExitStack() as stack:
        server = PageServer(settings, database, lambda: True, dict, str)
        stack.enter_context(server.serving())
        port = httpx2.URL(server.url).port or 0
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            for _ in range(_THREADS + 5)
        ]
        with _locked(place, url, "scheduled"):
            for client in clients:
                client.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: place.ask(_WAITING, _name(url)) == [(_THREADS,)])

            assert httpx2.get(f"{server.url}healthz", timeout=10).text == "ok\n"
        assert [client.recv(12) for client in clients] == [b"HTTP/1.1 200"] * len(clients)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a tenth of a second for what is locked."""
    monkeypatch.setitem(postgresql._SETTINGS, "lock_timeout", "100ms")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("table", ["lease", "run", "blob"])
def test_a_run_says_that_another_program_holds_a_lock_and_ends(
    place: Server, tmp_path: Path, table: str
) -> None:
    url = create_database()
    a_directory(tmp_path).build("base")
    with _locked(place, url, table):
        done = run_here(tmp_path, {}, "gc", "--store", "local:cache", "--database", url, "--quiet")

    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.endswith(
        "another program, such as VACUUM FULL, holds a lock on a table: try again later"
    )


@pytest.mark.usefixtures("impatient")
def test_who_waits_for_a_migration_waits_as_long_as_it_takes(place: Server) -> None:
    url = create_database(empty=True)
    with opened(url) as database, opened(url) as other, ThreadPoolExecutor(1) as pool:
        with database.begin() as connection:
            database._backend.begin_migration(connection)
            waits = pool.submit(other.upgrade)
            wait_until(lambda: place.ask(_WAITING_FOR_LONG, _name(url)) == [(1,)])
            assert not waits.done()
        waits.result()
        assert other.revision() == NEWEST
        with other.begin() as connection:
            lock_until_the_end(connection, QUEUE)
            assert _show(connection, "lock_timeout") == "100ms"


_WAITING_FOR_LONG = """
SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'
AND query_start < clock_timestamp() - interval '300 ms'
"""


# Several runs.


def _hold(database: Database, target: str | None) -> None:
    with database.lock() if target is None else database.lease(target):
        pass


def test_runs_on_different_targets_work_side_by_side(database: Database) -> None:
    with database.lease("a"):
        _hold(database, "b")
        with database.begin() as connection:
            begin_run(connection, find_target(connection, "a"), NOW, dry_run=False)
        with pytest.raises(DatabaseError, match=r"graph_\d+ for a \(process \d+ on .*, since 20"):
            _hold(database, "a")
        with pytest.raises(DatabaseError, match="another run holds the database"):
            _hold(database, None)
    _hold(database, "a")
    with database.lock(), pytest.raises(DatabaseError, match="for b: wait until it ends"):
        _hold(database, "b")


def test_a_run_on_one_target_says_nothing_of_runs_on_another(database: Database) -> None:
    with database.begin() as connection:
        here, there = (find_target(connection, name) for name in ("here", "there"))
        for target in (here, there):
            begin_run(connection, target, NOW, dry_run=False)
        assert targets_running(connection) == {here: "here", there: "there"}
        end_killed_runs(connection, here, NOW)

        assert targets_running(connection) == {there: "there"}


HOLDER = """
import sys
from maintainer.graph.database import Database

with Database(sys.argv[1]).lease("a"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_holds_nothing(database: Database, place: Server) -> None:
    url = place.url(database.name.rpartition("/")[2])
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(DatabaseError, match="another run holds"):
            _hold(database, "a")
        process.kill()
    # The server notices the end of the connection, which takes it a moment.
    with database.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '20s'"))
        connection.execute(
            text(
                "SELECT pg_advisory_xact_lock(classid::int, objid::int) FROM pg_locks"
                " WHERE locktype = 'advisory' AND granted"
            )
        )

    _hold(database, "a")


def test_concurrent_transactions_give_new_rows_different_ids(database: Database) -> None:
    ready = threading.Barrier(2, timeout=30)

    def write(name: str) -> set[int]:
        with database.begin() as connection:
            target = find_target(connection, name)
            ready.wait()
            ids = Ids(connection, BLOB)
            rows = [
                {"id": ids.take(), "target_id": target, "digest": f"{name} {number}",
                 "first_seen_at": NOW - timedelta(days=number)}
                for number in range(150)
            ]  # fmt: skip
            ready.wait()
            connection.execute(insert(BLOB), rows)
            return {int(str(row["id"])) for row in rows}

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(write, ["a", "b"])

    assert not one & other
    with database.reading() as connection:
        assert len(connection.scalars(select(BLOB.c.id)).all()) == 300
        assert connection.scalars(select(TARGET.c.name).order_by(TARGET.c.name)).all() == ["a", "b"]
