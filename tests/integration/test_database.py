"""The SQLite file: made, upgraded, held by one run at a time, and left alone when it is no use."""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import alembic.command
import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Row, create_engine, event, insert, inspect, select, text
from sqlalchemy.exc import StatementError

import maintainer
from maintainer.cacheconfig import ENTRY_VERSION, BlobKey, Ref, encode, parse_key
from maintainer.errors import DatabaseError
from maintainer.graph.actions import number_actions, save_keeps, save_plan
from maintainer.graph.create import DIALECTS, path_of_statements
from maintainer.graph.database import Database
from maintainer.graph.entries import ENTRY_COLUMNS, to_entry
from maintainer.graph.migrate import migrate, write_statements
from maintainer.graph.recall import load_snapshot
from maintainer.graph.record import find_target, record
from maintainer.graph.revision import NEWEST
from maintainer.graph.runs import begin_run, save_index_marks, save_marks
from maintainer.graph.tables import BLOB, ENTRY, METADATA, REF, TARGET
from maintainer.mark import mark
from maintainer.model.decision import Rules
from maintainer.model.entry import Access, KnownEntry, StoredEntry
from maintainer.model.memory import Probe
from maintainer.model.outcome import Outcome
from maintainer.model.reason import OtherTool, Reason, Unreferenced, code_of
from maintainer.model.store import Abilities
from maintainer.plan import make_plan
from maintainer.stores.decoding import read_content
from tests.empty_database import make_empty, query, url_of
from tests.privileges import bound_by_modes
from tests.snapshots import MAIN, NOW, WEB, an_index, blob, blob_key, hours

_GRACE = hours(24)
CEST = timezone(timedelta(hours=2))
MIGRATIONS = Path(maintainer.__file__).parents[1] / "migrations"


def _scripts() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


SCRIPTS = ScriptDirectory.from_config(_scripts())
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()]
"""Every revision that was ever released; the newest comes first."""


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """Open a database, as a command does."""
    database = Database(f"sqlite:///{path}")
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a database that does not exist yet."""
    return tmp_path / "maintainer.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """Return a database at the newest revision."""
    make_empty(path)
    with opened(path) as database:
        yield database


def _make_at(path: Path, revision: str) -> None:
    """Make a database as a version of that revision left it, with a row in it."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = _scripts()
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
        connection.execute(text("INSERT INTO target (name) VALUES ('github:octo/cache')"))
    engine.dispose()


# Revisions.


def test_a_fresh_file_is_made_at_the_newest_revision(path: Path) -> None:
    with opened(path) as database:
        assert database.revision() is None
        assert not path.exists()
        database.upgrade()
        assert database.revision() == REVISIONS[0]


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_file_of_every_released_revision_is_upgraded_and_keeps_what_it_knows(
    path: Path, revision: str
) -> None:
    _make_at(path, revision)

    with opened(path) as database:
        assert database.revision() == revision
        database.upgrade()
        assert database.revision() == REVISIONS[0]
        with database.begin() as connection:
            assert connection.execute(select(TARGET.c.name)).scalars().all() == [
                "github:octo/cache"
            ]


@pytest.mark.parametrize("revision", [None, *REVISIONS])
def test_models_and_migrations_agree_wherever_an_upgrade_began(
    path: Path, revision: str | None
) -> None:
    if revision:
        _make_at(path, revision)

    with opened(path) as database:
        database.upgrade()
        with database.begin() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_statements_for_a_new_database_are_those_of_the_migrations(dialect: str) -> None:
    written = path_of_statements(dialect).read_text(encoding="utf-8")

    assert written == write_statements(dialect), "run `python -m maintainer.graph.migrate`"


def test_a_new_file_equals_the_one_that_alembic_makes(path: Path, tmp_path: Path) -> None:
    migrated = tmp_path / "migrated.db"
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.begin() as connection:
        assert migrate(connection)
    engine.dispose()

    with opened(path) as database:
        database.upgrade()

    assert _schema(path) == _schema(migrated)
    for file in (path, migrated):
        assert query(file, "SELECT version_num FROM alembic_version") == [(NEWEST,)]


def _schema(path: Path) -> list[list[str]]:
    """Return how all tables, indexes and views were made, word by word: Alembic writes no tabs."""
    made = query(path, "SELECT type, name, sql FROM sqlite_master ORDER BY type, name")
    return [[kind, name, *(sql or "").split()] for kind, name, sql in made]


def test_all_revisions_are_in_one_line_and_the_package_knows_the_newest() -> None:
    assert SCRIPTS.get_heads() == [NEWEST]
    assert len(SCRIPTS.get_bases()) == 1


def test_a_file_at_the_newest_revision_is_not_written_again(path: Path) -> None:
    _make_at(path, REVISIONS[0])
    with opened(path) as database:
        database.upgrade()
    before = path.read_bytes()

    with opened(path) as database:
        database.upgrade()

    assert path.read_bytes() == before


# How it is opened.


def test_foreign_keys_are_enforced_and_readers_do_not_wait(database: Database) -> None:
    with database.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_row_of_nothing_is_refused_in_one_line(database: Database) -> None:
    with pytest.raises(DatabaseError, match="FOREIGN KEY constraint failed") as caught:
        _insert_ref(database, target_id=99)

    assert "\n" not in str(caught.value)


def _insert_ref(database: Database, *, target_id: int) -> None:
    with database.begin() as connection:
        values = {"target_id": target_id, "name": "main", "readable": True, "writable": True}
        connection.execute(insert(REF).values(values))


def test_too_many_transactions_at_once_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "busy.db"
    make_empty(path)
    with closing(Database(url_of(path))) as database, ExitStack() as all_of_them:
        monkeypatch.setattr(database._backend.engine.pool, "_timeout", 0.01)
        for _ in range(15):
            all_of_them.enter_context(database.reading())
        with pytest.raises(DatabaseError, match="too many transactions"), database.reading():
            pass


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.begin() as connection:
            find_target(connection, "github:octo/cache")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    with database.begin() as connection:
        assert connection.execute(select(TARGET.c.name)).all() == []


def test_forgetting_a_target_forgets_all_that_is_known_of_it(database: Database) -> None:
    with database.begin() as connection:
        _record_a_run(connection)
        used = {name for name, rows in _dump(connection).items() if rows}
        assert used >= {"entry", "generation", "generation_blob", "memory", "run", "action", "keep"}
        connection.execute(text("DELETE FROM target"))

        assert {name: rows for name, rows in _dump(connection).items() if rows} == {}


# One run at a time.

HOLDER = """
import sys
from datetime import UTC, datetime
from maintainer.graph.database import Database
from maintainer.graph.record import find_target
from maintainer.graph.runs import begin_run

database = Database(sys.argv[1])
database.upgrade()
with database.lock():
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        begin_run(connection, target, datetime(2026, 8, 1, 9, 30, tzinfo=UTC), dry_run=False)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the database."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, f"sqlite:///{path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process


def _hold(database: Database) -> None:
    with database.lock():
        pass


def test_the_second_of_two_runs_is_told_who_holds_the_database(
    path: Path, database: Database
) -> None:
    with another_run(path) as process:
        with pytest.raises(DatabaseError) as caught:
            _hold(database)

        assert str(caught.value) == (
            f"another run holds the database {path} (process {process.pid} on {os.uname().nodename}"
            ", since 2026-08-01 09:30:00 UTC): wait until it ends"
        )
        process.communicate("")

    _hold(database)


def test_a_database_can_be_read_while_a_run_holds_it(path: Path, database: Database) -> None:
    with another_run(path), database.begin() as connection:
        assert connection.execute(select(TARGET.c.name)).scalars().all() == ["github:octo/cache"]


def test_a_link_to_a_database_is_that_database(path: Path, database: Database) -> None:
    database.upgrade()
    link = path.with_name("link.db")
    link.symlink_to(path.name)

    with (
        database.lock(),
        closing(Database(f"sqlite:///{link}")) as other,
        pytest.raises(DatabaseError, match="another run holds the database"),
    ):
        _hold(other)


@pytest.mark.parametrize(
    "name", ["app%2Fmain.db", "100%.db", "a%20b.db", "a b#c&d;e.db", "ä'\"[x].db", "a:b@c.db"]
)
def test_a_path_is_that_of_the_file_whatever_it_contains(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / name) as database:
        database.upgrade()

        assert database.name == str(tmp_path / name)

    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_run_that_was_killed_holds_nothing_and_is_told_apart(
    path: Path, database: Database
) -> None:
    with another_run(path) as process:
        process.kill()

    with database.lock(), database.begin() as connection:
        begin_run(connection, find_target(connection, "github:octo/cache"), NOW, dry_run=False)
        runs = connection.exec_driver_sql("SELECT status FROM run ORDER BY id").scalars().all()

    assert runs == ["killed", "running"]


def test_a_held_database_that_tells_no_run_is_still_held(path: Path, database: Database) -> None:
    with (
        opened(path) as other,
        database.lock(),
        pytest.raises(DatabaseError, match=r"holds the database .*/maintainer\.db: wait until"),
    ):
        _hold(other)


# Files that are of no use.


def _newer(path: Path) -> None:
    with opened(path) as database:
        database.upgrade()
        with database.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))


def _of_another_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE moz_bookmarks (url TEXT)")
    connection.commit()
    connection.close()


def _no_database(path: Path) -> None:
    path.write_bytes(b"This is a text, and long enough to be taken for a page." * 100)


_NO_DATABASE = (
    "cannot be used: file is not a database: name another one (`database`), or move this file away"
)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_newer, "was made by a newer version: upgrade maintainer"),
        (_no_database, _NO_DATABASE),
        (_of_another_program, "belongs to another program"),
    ],
)
def test_a_file_of_no_use_is_told_in_one_line_and_not_changed(
    path: Path, make: Callable[[Path], None], problem: str
) -> None:
    make(path)
    before = _files(path)

    with opened(path) as database, pytest.raises(DatabaseError) as caught:
        database.upgrade()

    assert str(caught.value) == f"the database {path} {problem}"
    assert _files(path) == before


def _files(path: Path) -> dict[str, bytes]:
    """Return the files of a database that nobody has open."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def test_a_file_that_is_no_database_has_no_revision_but_a_problem(path: Path) -> None:
    _no_database(path)

    with opened(path) as database, pytest.raises(DatabaseError, match="file is not a database"):
        database.revision()


def test_a_folder_in_place_of_the_file_is_told_in_one_line(path: Path) -> None:
    path.mkdir()

    with opened(path) as database, pytest.raises(DatabaseError) as caught:
        database.upgrade()

    assert str(caught.value) == f"the database {path} cannot be used: it is a folder"
    assert list(path.iterdir()) == []


@contextmanager
def a_folder_that_we_cannot_write() -> Iterator[Path]:
    """Return a folder without the right to write it, which binds root too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        try:
            with bound_by_modes():
                yield folder
        finally:
            folder.chmod(stat.S_IRWXU)
        assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_in_one_line() -> None:
    with a_folder_that_we_cannot_write() as folder:
        path = folder / "maintainer.db"
        with opened(path) as database:
            for use in (database.upgrade, lambda: _hold(database)):
                with pytest.raises(DatabaseError, match=f"^the database {path} cannot be used: "):
                    use()


def test_a_folder_that_does_not_exist_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "maintainer.db"
    with (
        opened(path) as database,
        pytest.raises(DatabaseError, match=r"cannot be used: its folder does not exist$"),
    ):
        database.upgrade()
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_itself_is_told_in_one_line(path: Path) -> None:
    path.symlink_to(path.name)

    with opened(path) as database:
        for use in (database.upgrade, lambda: _hold(database)):
            with pytest.raises(DatabaseError, match=r"cannot be used: Too many levels of symbolic"):
                use()

    assert path.is_symlink()


# Times.


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with (
        database.begin() as connection,
        pytest.raises(StatementError, match="a time without a zone"),
    ):
        begin_run(connection, 1, datetime(2026, 8, 1), dry_run=False)  # noqa: DTZ001 - the point


@pytest.mark.parametrize(
    ("local", "shown"),
    [
        (datetime(2026, 8, 1, 14, 0, 0, 250_000, tzinfo=CEST), "2026-08-01 12:00:00.250000"),
        (datetime(1969, 7, 20, 22, 17, 40, 1, tzinfo=CEST), "1969-07-20 20:17:40.000001"),
        (datetime(1970, 1, 1, 2, tzinfo=CEST), "1970-01-01 00:00:00.000000"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "9999-12-31 23:59:59.999999"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01 00:00:00.000000"),
    ],
)
def test_times_are_shown_in_utc_so_that_their_text_can_be_compared(
    database: Database, local: datetime, shown: str
) -> None:
    with database.begin() as connection:
        values = {"target_id": find_target(connection, "t"), "digest": "d", "first_seen_at": local}
        connection.execute(insert(BLOB).values(values))

        kept = connection.execute(select(BLOB.c.first_seen_at, BLOB.c.missing_since)).one()
        view = connection.execute(text("SELECT first_seen_at, missing_since FROM blobs")).one()

    assert kept == (local, None)
    assert kept.first_seen_at.tzinfo is UTC
    assert view == (shown, None)


# What a run writes down.


def _probe(*, entries: int = 3, records: int = 2) -> Probe:
    """Return what a run has seen of a small cache, or of a larger one."""
    names = [f"layer {number}" for number in range(records)]
    content = encode(an_index(*names))
    listed = [(str(WEB.key(1)), MAIN, len(content)), ("setup-node-0a1b", MAIN, 5)]
    listed += [(blob_key(name), MAIN, 10) for name in names[1:]]
    listed += [(str(BlobKey(blob(f"dangling {n}"))), MAIN, 10) for n in range(entries)]
    listed += [(str(WEB.key(1)), Ref("refs/pull/7/merge"), 10)]
    stored = tuple(
        _entry(number, ref, key, size) for number, (key, ref, size) in enumerate(listed, start=1)
    )
    return Probe(
        at=NOW,
        access=Access(frozenset({MAIN}), frozenset({MAIN})),
        abilities=Abilities(numbered=True, evicted_by="GitHub"),
        entries=stored,
        listing_complete=True,
        read=(read_content(WEB, 1, content, NOW - hours(50), store_id=1),),
        unread=(),
        adopted={},
        found=frozenset(),
        gone=frozenset(),
        live_blobs=frozenset(blob(name) for name in names[1:]),
        missing_blobs=frozenset({blob(names[0])}),
        read_by_builders={WEB: str(WEB.key(1))},
    )


def _entry(number: int, ref: Ref, key: str, size: int) -> StoredEntry:
    version, parsed = _version(key), parse_key(key)
    created_at, used_at = NOW - hours(50), NOW - hours(40)
    return StoredEntry(number, ref, key, version, size, created_at, used_at, parsed)


def _version(key: str) -> str:
    return "0" * 64 if key.startswith("setup-node") else ENTRY_VERSION


def _record_a_run(
    connection: Connection, probe: Probe | None = None, grace: timedelta = _GRACE
) -> None:
    """Write down all that a run does, up to the plan."""
    probe = probe or _probe()
    target = find_target(connection, "github:octo/cache")
    run = begin_run(connection, target, probe.at, dry_run=False)
    record(connection, target, probe)
    entries = _entries(connection, probe)
    marks = mark(load_snapshot(connection, target, probe, entries=entries))
    plan = make_plan(marks, Rules(grace))
    save_marks(connection, target, marks, plan)
    save_index_marks(connection, target, marks, plan)
    save_plan(connection, run, replace(plan, writes=()))
    number_actions(connection, run)
    save_keeps(connection, run, plan.keeps)


def _entries(connection: Connection, probe: Probe) -> tuple[KnownEntry, ...]:
    """Return the entries that a probe has shown, as a run knows them."""
    rows: Iterable[Row[Any]] = connection.execute(
        select(*ENTRY_COLUMNS)
        .select_from(ENTRY)
        .join(REF, REF.c.id == ENTRY.c.ref_id)
        .where(ENTRY.c.last_seen_at.is_(None))
        .order_by(ENTRY.c.store_id)
    )
    return tuple(to_entry(row, probe.at) for row in rows)


Tables = dict[str, list[dict[str, object]]]


def _dump(connection: Connection) -> Tables:
    """Return the content of all tables but Alembic's."""
    tables = sorted(set(inspect(connection).get_table_names()) - {"alembic_version"})
    return {
        table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
        for table in tables
    }


def test_recording_the_same_probe_twice_changes_nothing(database: Database) -> None:
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        record(connection, target, _probe())
        before = _dump(connection)
        record(connection, target, _probe())

        assert _dump(connection) == before


def test_recording_the_same_again_later_changes_only_when_that_was(
    database: Database,
) -> None:
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        record(connection, target, _probe())
        before = _dump(connection)
        record(connection, target, replace(_probe(), at=NOW + hours(1)))
        after = _dump(connection)

    changed = set()
    for table, rows in after.items():
        assert len(rows) == len(before[table])
        for old, new in zip(before[table], rows, strict=True):
            changed |= {(table, column) for column in new if new[column] != old[column]}
    assert changed == {("target", "probed_at"), ("target", "listed_at")}


def test_the_views_say_of_everything_that_is_stored_that_the_last_look_has_seen_it(
    database: Database,
) -> None:
    views = ("entries", "blobs", "generations", "scopes")
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        probe = _probe()
        live = probe.live_blobs | probe.missing_blobs
        probe = replace(probe, live_blobs=live, missing_blobs=frozenset())
        record(connection, target, probe)
        record(connection, target, replace(probe, at=NOW + hours(1), read=()))
        for view in views:
            rows = connection.execute(text(f"SELECT last_seen_at FROM {view}")).scalars()
            assert set(rows) == {f"{NOW + hours(1):%Y-%m-%d %H:%M:%S.%f}"}
        half = replace(probe, at=NOW + hours(2), entries=(), read=(), live_blobs=frozenset())
        record(connection, target, half)
        record(connection, target, replace(half, at=NOW + hours(3)))
        for view in views:
            rows = connection.execute(text(f"SELECT last_seen_at FROM {view}")).scalars()
            assert set(rows) == {f"{NOW + hours(1):%Y-%m-%d %H:%M:%S.%f}"}


def test_what_was_first_seen_now_is_told_from_what_was_known(database: Database) -> None:
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        for at, known in ((NOW, False), (NOW + hours(1), True)):
            probe = replace(_probe(), at=at)
            record(connection, target, probe)
            assert {entry.known_before for entry in _entries(connection, probe)} == {known}


def test_what_is_not_listed_any_more_is_missing_and_comes_back_when_it_is(
    database: Database,
) -> None:
    def missing(connection: Connection) -> int:
        statement = select(ENTRY.c.id).where(ENTRY.c.missing_since.is_not(None))
        return len(connection.execute(statement).all())

    whole = _probe()
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        record(connection, target, whole)
        half = replace(whole, at=NOW + hours(1), entries=list(whole.entries)[:3], read=())
        record(connection, target, replace(half, listing_complete=False))
        assert missing(connection) == 0
        record(connection, target, half)
        assert missing(connection) == len(list(whole.entries)) - 3
        record(connection, target, replace(whole, at=NOW + hours(2)))
        assert missing(connection) == 0


# How much it asks of SQLite.


@contextmanager
def counting_statements(connection: Connection) -> Iterator[list[str]]:
    """Note each statement; one with many rows of values counts once."""
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(connection, "before_cursor_execute", note)
    yield statements
    event.remove(connection, "before_cursor_execute", note)


def test_the_number_of_statements_does_not_grow_with_the_entries_or_the_records(
    tmp_path: Path,
) -> None:
    def count(probe: Probe, name: str) -> int:
        with opened(tmp_path / name) as database:
            database.upgrade()
            with database.begin() as connection, counting_statements(connection) as statements:
                _record_a_run(connection, probe)
                _record_a_run(connection, replace(probe, at=NOW + hours(30)))
        return len(statements)

    few = count(_probe(entries=3, records=2), "few.db")

    assert few > 20
    assert count(_probe(entries=3_000, records=2), "entries.db") == few
    assert count(_probe(entries=3, records=1_000), "records.db") == few


def test_a_first_look_adds_each_blob_as_it_was_found_and_changes_none_of_them(
    database: Database,
) -> None:
    probe = _probe()
    live = probe.live_blobs | probe.missing_blobs
    probe = replace(probe, live_blobs=live, missing_blobs=frozenset())
    with database.begin() as connection, counting_statements(connection) as statements:
        record(connection, find_target(connection, "github:octo/cache"), probe)
        rows = connection.execute(select(BLOB.c.is_found, BLOB.c.missing_since)).all()

    assert set(rows) == {(True, None)}
    assert not [one for one in statements if one.split()[:2] == ["UPDATE", "blob"]]


def test_recording_what_is_known_writes_as_few_rows_whatever_the_cache(tmp_path: Path) -> None:
    def count(probe: Probe, name: str) -> tuple[int, int]:
        with opened(tmp_path / name) as database:
            database.upgrade()
            with database.begin() as connection:
                _record_a_run(connection, probe, grace=hours(99))
                before = _dump(connection)
                with counting_statements(connection) as statements:
                    again = replace(probe, at=NOW + hours(2), read=())
                    _record_a_run(connection, again, grace=hours(99))
                return len(statements), _count_written(before, _dump(connection))

    few = count(_probe(entries=3, records=2), "few.db")

    assert few[1] < 10
    assert count(_probe(entries=3_000, records=2), "entries.db") == few
    assert count(_probe(entries=3, records=1_000), "records.db") == few


def _count_written(before: Tables, after: Tables) -> int:
    """Count the rows that are new or have changed."""
    return sum(row not in before[table] for table, rows in after.items() for row in rows)


# Views: what people may query.

VIEWS = {
    "blobs": [
        *("target", "digest", "ref", "store_id", "size", "state", "reason", "facts"),
        *(
            "created_at",
            "last_accessed_at",
            "first_seen_at",
            "last_seen_at",
            "missing_since",
            "unreferenced_since",
        ),
    ],
    "generations": [
        *("target", "scope", "ref", "generation", "signed", "key", "store_id", "is_stored"),
        *("is_superseded", "violation", "size", "records", "results", "blobs", "blobs_missing"),
        *("first_seen_at", "last_seen_at", "missing_since", "superseded_at"),
    ],
    "scopes": [
        *("target", "scope", "ref", "signed", "generations", "generations_stored"),
        *("newest_generation", "size", "last_seen_at"),
    ],
    "runs": [
        *("id", "target", "started_at", "finished_at", "status", "dry_run", "version", "process"),
        *("entries", "indexes_read", "indexes_written", "entries_deleted", "bytes_freed"),
        *("blobs_missing", "requests"),
    ],
    "actions": [
        *("run", "started_at", "target", "position", "kind", "subject", "ref", "store_id", "size"),
        *("reason", "facts", "outcome", "outcome_facts"),
    ],
}
"""The public face of the file: what is here may gain columns, but never lose one."""


@pytest.mark.parametrize("view", VIEWS)
def test_the_views_have_the_columns_that_people_may_rely_on(database: Database, view: str) -> None:
    with database.begin() as connection:
        _record_a_run(connection)
        rows = connection.execute(text(f"SELECT * FROM {view}"))

        assert list(rows.keys())[: len(VIEWS[view])] == VIEWS[view]
        assert rows.all()


def test_every_view_can_be_queried(database: Database) -> None:
    with database.begin() as connection:
        views = inspect(connection).get_view_names()
        assert set(views) >= set(VIEWS)
        for view in views:
            connection.execute(text(f"SELECT * FROM {view}"))


def test_the_view_of_blobs_tells_of_each_why_it_is_kept_or_not(database: Database) -> None:
    with database.begin() as connection:
        _record_a_run(connection)
        rows = connection.execute(text("SELECT digest, state, reason FROM blobs")).all()

    states = {row.digest: row.state for row in rows}
    assert states[blob("layer 0")] == "missing"
    assert states[blob("layer 1")] == "reachable"
    assert states[blob("dangling 0")] == "dangling"
    assert all(row.reason for row in rows)


def test_the_views_hold_whole_reasons_and_outcomes(database: Database) -> None:
    with database.begin() as connection:
        _record_a_run(connection)
        reasons = connection.execute(
            text(
                "SELECT reason, facts FROM blobs UNION ALL SELECT reason, facts FROM entries "
                "UNION ALL SELECT reason, facts FROM actions"
            )
        ).all()
        outcomes = connection.execute(text("SELECT outcome, outcome_facts FROM actions")).all()

    assert {row.reason for row in reasons} >= {"missing", "needed", "grace", "other_tool"}
    for row in reasons:
        assert code_of(msgspec.json.decode(row.facts, type=Reason)) == row.reason
    assert outcomes
    for row in outcomes:
        assert code_of(msgspec.json.decode(row.outcome_facts, type=Outcome)) == row.outcome


def test_what_is_stored_and_remembered_of_an_index_alike_is_in_memory_once(
    database: Database,
) -> None:
    with database.begin() as connection:
        target = find_target(connection, "github:octo/cache")
        begin_run(connection, target, _probe().at, dry_run=False)
        record(connection, target, _probe())
        again = load_snapshot(connection, target, replace(_probe(), read=()))

    (stored,) = again.generations
    assert stored.config
    assert stored.config is again.memory[WEB].config


def test_a_reason_is_what_it_was_when_it_comes_back_from_the_graph(database: Database) -> None:
    with database.begin() as connection:
        _record_a_run(connection)
        target = find_target(connection, "github:octo/cache")
        entries = _entries(connection, _probe())
        again = mark(load_snapshot(connection, target, _probe(), entries=entries))

    known = {one.entry.store_id: one.entry.reason for one in again.marks}
    assert Unreferenced() in known.values()
    assert OtherTool() in known.values()


def test_the_view_of_generations_counts_what_is_in_them(database: Database) -> None:
    with database.begin() as connection:
        _record_a_run(connection)
        query = "SELECT key, is_stored, records, results, blobs, blobs_missing FROM generations"
        rows = connection.execute(text(query)).all()

    assert rows == [(str(WEB.key(1)), 1, 2, 2, 2, 1)]
