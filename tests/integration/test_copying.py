"""A history is copied from one kind of database to another, whole or not at all."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, text
from typer.testing import CliRunner, Result

from maintainer.cli.app import app
from maintainer.errors import DatabaseError, MaintainerError, UsageError
from maintainer.graph.compare import compare
from maintainer.graph.copying import TABLES
from maintainer.graph.database import Database
from maintainer.graph.explain import explain
from maintainer.graph.forest import load_forest
from maintainer.graph.history import load_history
from maintainer.graph.record import find_target
from maintainer.graph.reports import list_runs, load_report
from maintainer.graph.tables import SCOPE
from tests.empty_database import make_empty
from tests.integration.test_idle import is_idle, settle
from tests.integration.world import World, a_world, blob_of
from tests.postgresql import create_database, require_postgresql


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    require_postgresql()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Let runs see builds, an eviction and what nobody needs; the last of them is idle."""
    with a_world(tmp_path) as world:
        world.build("base", "api", scope="api")
        world.build("base", "web", scope="web")
        world.put("setup-node-1", size=500)
        world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=70)
        for step in ("web", "test"):
            world.gc()
            world.passes(days=3)
            world.build("base", step, scope="api")
            world.evict(step)
        settle(world)
        yield world


def _copy(source: str, target: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["db", "copy", source, target, *options])


def _dump(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    return {
        table.name: [
            tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))
        ]
        for table in TABLES
    }


def _all_answers(connection: Connection) -> list[object]:
    """Ask all that commands ask."""
    return [
        list_runs(connection, 10),
        [load_report(connection, run.run) for run in list_runs(connection, 10)],
        compare(connection, 1, 3),
        [explain(connection, subject) for subject in (blob_of("base"), blob_of("orphan"))],
        load_forest(connection, None),
        load_history(connection, "github:example/app"),
        _dump(connection),
    ]


def _ask(url: str) -> list[object]:
    with closing(Database(url)) as database, database.reading() as connection:
        return _all_answers(connection)


def test_a_history_moves_to_a_server_and_back_and_runs_go_on(world: World, tmp_path: Path) -> None:
    file, server, back = str(world.database), create_database(empty=True), str(tmp_path / "back.db")

    there = _copy(file, server)
    again = _copy(server, back, "--json")

    assert there.exit_code == again.exit_code == 0, f"{there.output}{again.output}"
    answers = _ask(f"sqlite:///{file}")
    assert _ask(server) == answers
    assert _ask(f"sqlite:///{back}") == answers
    counts = {one["table"]: one["rows"] for one in json.loads(again.stdout)}
    assert counts == {name: len(rows) for name, rows in dict(answers[-1]).items()}  # type: ignore[call-overload]
    assert f"{counts['entry']:>9} entry" in there.output
    assert there.output.splitlines()[-1] == (
        f"{server.partition('?')[0]} holds all that {file} holds: counts and digests are the same"
    )
    assert "?" not in there.output

    # A run goes on where the last one was, and its new rows are in nobody's way.
    world.databases.clear()
    world.databases[world.database] = Database(server)
    world.passes(hours=1)
    idle = world.gc()
    assert (is_idle(idle), idle.run) == (True, counts["run"] + 1)
    world.build("new", "newer", scope="another")
    assert world.gc().status == "done"


def test_a_database_that_a_run_has_used_is_not_overwritten(world: World, tmp_path: Path) -> None:
    used = tmp_path / "used.db"
    make_empty(used)
    with closing(Database(f"sqlite:///{used}")) as database, database.begin() as connection:
        find_target(connection, "github:octo/cache")

    result = _copy(str(world.database), str(used))

    assert isinstance(result.exception, DatabaseError)
    assert str(result.exception) == (
        f"the database {used} is not empty: copy to one that no run has used"
    )


def test_a_database_is_not_copied_to_itself(world: World) -> None:
    outcome = _copy(str(world.database), str(world.database))

    assert outcome.exit_code == 1
    assert "cannot be copied to itself" in str(outcome.exception)


def test_what_cannot_be_copied_leaves_an_empty_database(world: World) -> None:
    url = create_database()
    with (
        closing(Database(f"sqlite:///{world.database}")) as database,
        database.begin() as connection,
    ):
        connection.execute(insert(SCOPE).values(target_id=1, name="a\0b"))

    result = _copy(str(world.database), url)

    assert str(result.exception).endswith("a name contains NUL, which PostgreSQL cannot store")
    with closing(Database(url)) as database, database.reading() as connection:
        assert not any(_dump(connection).values())


def test_a_copy_that_is_different_is_undone(world: World) -> None:
    url = create_database()
    spoil = "CREATE FUNCTION spoil() RETURNS trigger AS $$ BEGIN NEW.size := 1; RETURN NEW; END $$"
    with closing(Database(url)) as database:
        with database.begin() as connection:
            connection.execute(text(f"{spoil} LANGUAGE plpgsql".replace(":=", r"\:=")))
            connection.execute(
                text(
                    "CREATE TRIGGER spoil BEFORE INSERT ON run_state "
                    "FOR EACH ROW EXECUTE FUNCTION spoil()"
                )
            )

        result = _copy(str(world.database), url)

        assert "does not return what was copied to its table run_state" in str(result.exception)
        with database.reading() as connection:
            assert not any(_dump(connection).values())


def test_it_waits_for_no_run(world: World, tmp_path: Path) -> None:
    database = world.databases[world.database]

    with database.lock():
        result = _copy(str(world.database), str(tmp_path / "new.db"))

    assert str(result.exception).startswith(f"another run holds the database {world.database}")


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("nowhere.db", "new.db", "there is no database nowhere.db: run `maintainer gc` first"),
        ("mysql://u:s3cr3t@h/graph", "new.db", "FROM is not a valid SQLite file"),
        ("old.db", "postgresql://u:s3cr3t@h", "TO is not a valid PostgreSQL database"),
    ],
)
def test_places_that_are_none_are_said_in_one_line(
    source: str, target: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    error = _copy(source, target).exception

    assert isinstance(error, UsageError | MaintainerError)
    assert str(error).startswith(problem)
    assert "s3cr3t" not in str(error)
