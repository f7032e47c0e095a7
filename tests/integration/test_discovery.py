"""Caches that come and go, found by the service: real directories, runs and databases."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from maintainer.errors import StoreError
from maintainer.graph.database import Database
from maintainer.graph.discovered import (
    Recorded,
    Search,
    drop_history,
    load_discoveries,
    load_found,
    record_search,
    retire_others,
)
from maintainer.graph.schedule import load_schedule
from maintainer.model.discovery import FoundCache
from maintainer.serve.discovery import search, sources_of
from maintainer.serve.reloading import Changes
from maintainer.serve.targets import combine
from maintainer.serve.worker import Worker
from maintainer.settings import DiscoverSettings, Settings
from tests.commands import Outcome, run_here
from tests.empty_database import make_empty, url_of
from tests.integration.directories import a_directory
from tests.integration.service import Place, Service, wait_until

NOW = datetime(2026, 11, 28, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return a database that knows nothing."""
    make_empty(tmp_path / "graph.db")
    opened = Database(url_of(tmp_path / "graph.db"))
    yield opened
    opened.close()


def _caches(*names: str) -> list[FoundCache]:
    return [FoundCache(name, f"local:/srv/{name}") for name in names]


def _record(
    database: Database, *names: str, problem: str | None = None, now: datetime = NOW
) -> Recorded:
    with database.begin() as connection:
        return record_search(connection, Search("b", "place", _caches(*names), problem), now)


def _active(database: Database) -> list[str]:
    with database.reading() as connection:
        return [one.name for one in load_found(connection, ["place"])["place"]]


# What is recorded.


@pytest.mark.each_database
def test_new_caches_appear_and_vanished_ones_retire(database: Database) -> None:
    assert _record(database, "a", "b") == Recorded(new=2)
    assert _record(database, "b", "c") == Recorded(new=1, gone=1)
    assert _active(database) == ["b", "c"]

    assert _record(database, "a", "b", "c") == Recorded(new=1)
    assert _active(database) == ["a", "b", "c"]


def test_a_search_that_is_not_complete_adds_and_retires_nothing(database: Database) -> None:
    _record(database, "a", "b")

    assert _record(database, "c", problem="HTTP 500").gone == 0

    assert _active(database) == ["a", "b", "c"]
    with database.reading() as connection:
        (status,) = load_discoveries(connection)
    assert (status.problem, status.completed_at) == ("HTTP 500", NOW)


def test_a_search_that_finds_less_than_half_is_believed_after_a_day(database: Database) -> None:
    hour = timedelta(hours=1)
    _record(database, "a", "b", "c")

    assert _record(database).problem == "it finds only 0 of the 3 it knows"
    _record(database, problem="HTTP 500", now=NOW + DAY)
    assert _record(database, "a", now=NOW + DAY).problem == "it finds only 1 of the 3 it knows"
    assert _record(database, "a", now=NOW + 2 * DAY - hour).gone == 0
    assert _active(database) == ["a", "b", "c"]

    assert _record(database, "a", now=NOW + 2 * DAY) == Recorded(gone=2)
    assert _active(database) == ["a"]


def test_a_place_that_is_searched_no_more_retires_its_caches(database: Database) -> None:
    _record(database, "a")

    with database.begin() as connection:
        retire_others(connection, {"b": "place"}, NOW)
        assert load_discoveries(connection)
    assert _active(database) == ["a"]

    with database.begin() as connection:
        retire_others(connection, {"b": "another place"}, NOW)
        assert not load_discoveries(connection)
    assert _active(database) == []


def test_a_worker_with_other_settings_learns_what_is_found_and_leaves_the_schedule_alone(
    database: Database,
) -> None:
    def changes(interval: str) -> Changes:
        table = {"name": "b", "store": "local:/srv/*", "interval": interval}
        settings = Settings.model_validate({"discover": [table]})
        return Changes(settings, database, Worker(database, {}, lambda: NOW))

    service, worker = changes("1h"), changes("2h")
    with database.begin() as connection:
        (source,) = sources_of(service.settings).values()
        record_search(connection, Search("b", source, _caches("a"), None), NOW)
    service.follow()
    with database.reading() as connection:
        before = load_schedule(connection)

    worker.learn()

    with database.reading() as connection:
        assert load_schedule(connection) == before
    assert list(before) == list(worker.worker.targets) == ["b.a"]


# Directories.


def _search(pattern: Path | str) -> Search:
    return anyio.run(search, DiscoverSettings(name="b", store=f"local:{pattern}"))


def _make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name / "blobs").mkdir(parents=True)


def test_directories_that_match_and_hold_a_cache_are_found(tmp_path: Path) -> None:
    _make(tmp_path, "web", "api", ".hidden", "bad\nname", "x/deep")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "web")
    (tmp_path / "file").write_text("")

    found = _search(tmp_path / "*")

    assert found.problem is None
    assert [(one.name, one.store) for one in found.found] == [
        ("api", f"local:{tmp_path}/api"),
        ("web", f"local:{tmp_path}/web"),
    ]
    assert [one.name for one in _search(tmp_path / "*/deep").found] == ["x"]
    assert [one.name for one in _search(tmp_path / "?/d*").found] == ["x/deep"]


def test_a_directory_that_is_missing_or_closed_makes_the_search_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(tmp_path, "a/one", "b/two")
    assert _search(tmp_path / "missing/*").problem == (
        f"{tmp_path}/missing cannot be read: No such file or directory"
    )

    def scandir(path: Path) -> object:
        if path == tmp_path / "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        return below(path)

    # Modes do not keep root from reading.
    below = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    found = _search(tmp_path / "*/*")

    assert [one.name for one in found.found] == ["b/two"]
    assert found.problem == f"{tmp_path}/a cannot be read: Permission denied"


def test_many_names_that_are_not_valid_are_a_few_lines_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _make(tmp_path, "web", *(f"a\n{number}" for number in range(50)))

    assert [one.name for one in _search(tmp_path / "*").found] == ["web"]

    assert len(caplog.messages) == 11
    assert "\n" not in "".join(caplog.messages)


# The service.


CONFIGURATION = """
[serve]
interval = "1s"

[[discover]]
name = "builders"
store = "local:caches/*"
exclude = ["tmp-*"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a configuration, and two caches in which something was built."""
    (tmp_path / "maintainer.toml").write_text(CONFIGURATION)
    for name in ("web", "api", "tmp-1"):
        folder = tmp_path / "made" / name
        folder.mkdir(parents=True)
        world = a_directory(folder)
        world.build("base", name)
        (tmp_path / "caches").mkdir(exist_ok=True)
        world.path.rename(tmp_path / "caches" / name)
    make_empty(tmp_path / "maintainer.db")
    return tmp_path


def _run(place: Path, *arguments: str) -> Outcome:
    database = ("--database", url_of(place / "maintainer.db"))
    more = () if arguments[0] == "targets" else database
    return run_here(place, {}, *arguments, "--config", "maintainer.toml", *more)


def test_targets_shows_what_the_service_would_maintain(place: Path) -> None:
    shown = _run(place, "targets", "--json")

    assert shown.status == 0
    assert shown.json == {
        "targets": [
            {
                "name": f"builders.{name}",
                "cache": f"local:caches/{name}",
                "rule": "every 1s",
                "discovery": "builders",
            }
            for name in ("api", "web")
        ],
        "ignored": [{"discovery": "builders", "name": "tmp-1", "reason": "exclude has tmp-*"}],
        "problems": [],
    }
    assert "builders.web" in _run(place, "targets").out
    assert "builders ignores tmp-1: exclude has tmp-*" in _run(place, "targets", "-v").out

    (place / "caches").rename(place / "elsewhere")
    failed = _run(place, "targets")
    assert failed.status == 1
    assert "discovery builders: caches cannot be read: No such file or directory" in failed.out


def test_a_run_by_hand_on_a_cache_that_was_found_has_the_settings_of_its_table(
    place: Path,
) -> None:
    text = CONFIGURATION + 'grace = "30d"\nmerged_tag = "all"\n'
    (place / "maintainer.toml").write_text(f'grace = "0s"\n{text}')
    assert _run(place, "serve", "--once").status == 0

    outcome = _run(place, "gc", "--json", "--store", "local:./caches/web")
    other = _run(place, "gc", "--json", "--store", "local:caches/tmp-1")

    assert outcome.json["grace_seconds"] == 30 * 24 * 3600
    assert "maintained" not in {one["scope"] for one in outcome.json["indexes"]}
    assert "the settings of target builders.web apply" in outcome.err
    assert other.json["grace_seconds"] == 0
    (place / "maintainer.db").unlink()
    assert _run(place, "gc", "--store", "local:nowhere").status == 1
    assert not (place / "maintainer.db").exists(), "no run was recorded"
    unknown = _run(place, "gc", "--json", "--dry-run", "--store", "local:./caches/web")
    assert unknown.json["grace_seconds"] == 0


def test_a_cache_is_found_by_the_name_of_its_target_too(place: Path) -> None:
    for name in ("web", "api", "web"):
        assert _run(place, "gc", "--store", f"local:caches/{name}").status == 0
    assert _run(place, "serve", "--once").status == 0
    web = f"local:{place}/caches/web"

    by_name, by_place = (
        [one["run"] for one in _run(place, "runs", "--json", "--target", target).json]
        for target in ("builders.web", web)
    )

    assert by_name == by_place == [5, 3, 1]
    assert _run(place, "report", "--json", "--target", "builders.api").json["run"] == 4
    diff = _run(place, "diff", "--json", "--last", "--target", "builders.web").json
    assert diff["after"] == 5
    assert _run(place, "simulate", "--json", "--target", "builders.web").json["target"] == web
    assert _run(place, "forget", "-n", "api", "--target", "builders.web").status == 0
    trees = _run(place, "tree", "--json", "--target", "builders.web").json
    assert {one["target"] for one in trees} == {web}
    layer = trees[0]["layers"][0]["digest"]
    for subject in (layer, layer[:16], "api"):
        everywhere = _run(place, "why", subject, "--json").json
        there = _run(place, "why", subject, "--json", "--target", "builders.web").json
        assert (len(everywhere), [one["target"] for one in there]) == (2, [web])
    unknown = _run(place, "runs", "--target", "web")
    assert unknown.status == 1
    assert unknown.problem == (
        f"the database has nothing of web; it has: local:{place}/caches/api, {web}"
    )
    assert _run(place, "diff", "1", "3", "--target", "builders.web").status == 2
    database = Database(url_of(place / "maintainer.db"))
    with closing(database), database.begin() as connection:
        connection.exec_driver_sql("UPDATE scheduled SET target = NULL WHERE name = 'builders.web'")
    new = _run(place, "report", "--target", "builders.web")
    assert new.problem == "target builders.web has not run yet"


@pytest.mark.each_database
def test_a_cache_that_vanishes_is_retired_and_its_history_is_kept_for_a_month(place: Path) -> None:
    assert _run(place, "serve", "--once").status == 0
    assert [one["name"] for one in _run(place, "schedule", "--json").json] == [
        "builders.api",
        "builders.web",
    ]

    shutil.rmtree(place / "caches" / "api")
    assert _run(place, "serve", "--once").status == 0

    assert [one["name"] for one in _run(place, "schedule", "--json").json] == ["builders.web"]
    runs = _run(place, "runs", "--json").json
    caches = f"local:{place}/caches"
    assert {one["target"] for one in runs} == {f"{caches}/api", f"{caches}/web"}
    assert _forget(place, days=29) == []
    assert _forget(place, days=31) == [f"{caches}/api"]
    runs = _run(place, "runs", "--json").json
    assert {one["target"] for one in runs} == {f"{caches}/web"}


def _forget(place: Path, days: int) -> list[str]:
    database = Database(url_of(place / "maintainer.db"))
    with closing(database), database.begin() as connection:
        return drop_history(connection, datetime.now(UTC) + days * DAY)


def test_a_cache_that_comes_back_or_is_configured_keeps_its_history(place: Path) -> None:
    assert _run(place, "serve", "--once").status == 0
    (place / "caches" / "api").rename(place / "away")
    assert _run(place, "serve", "--once").status == 0
    (place / "away").rename(place / "caches" / "api")
    own = '[[targets]]\nname = "own"\nstore = "local:caches/web"\n'
    (place / "maintainer.toml").write_text(CONFIGURATION + own)

    assert _run(place, "serve", "--once").status == 0

    names = [one["name"] for one in _run(place, "schedule", "--json").json]
    assert names == ["own", "builders.api"]
    assert _forget(place, days=400) == []


def test_a_link_in_the_place_of_a_found_directory_is_not_followed(place: Path) -> None:
    table = {"name": "builders", "store": f"local:{place}/caches/*"}
    settings = Settings.model_validate({"discover": [table]})
    found = {"builders": [FoundCache("web", f"local:{place}/caches/web")]}
    (target,) = combine(settings, found).values()
    (place / "caches" / "web").rename(place / "away")
    (place / "caches" / "web").symlink_to(place / "caches" / "tmp-1")

    async def open_it() -> None:
        async with target.connection.open():
            pass

    with pytest.raises(StoreError, match="it is a symbolic link"):
        anyio.run(open_it)
    (place / "caches").rename(place / "elsewhere")
    (place / "caches").symlink_to(place / "elsewhere")  # The user may choose what is above.
    (place / "caches" / "web").unlink()
    (place / "away").rename(place / "caches" / "web")
    anyio.run(open_it)


def test_a_search_that_fails_retires_nothing_and_fails_the_command(place: Path) -> None:
    assert _run(place, "serve", "--once").status == 0
    (place / "caches").rename(place / "away")

    failed = _run(place, "serve", "--once")

    assert failed.status == 1
    assert "discovery builders: caches cannot be read: No such file" in failed.err
    assert len(_run(place, "schedule", "--json").json) == 2


def test_a_service_finds_caches_while_it_serves(place: Path) -> None:
    served = Place(place, {})
    every_second = 'discover_interval = "1s"\n\n[[discover]]'
    served.configure(CONFIGURATION.replace("[[discover]]", every_second))
    (place / "caches" / "web").rename(place / "away")

    with served.serving() as service:
        wait_until(lambda: [one.name for one in served.statuses()] == ["builders.api"])
        (place / "away").rename(place / "caches" / "web")
        wait_until(lambda: len(served.statuses()) == 2)
        service.wait_until_ready()
        assert "builders.web" in service.get("").text

        (place / "caches").rename(place / "away")
        wait_until(lambda: "discovery builders: caches cannot be read" in _readiness(service))
        assert len(served.statuses()) == 2
        assert service.end() == 0


def _readiness(service: Service) -> str:
    return service.get("readyz").text
