"""`maintainer serve`, as a process, against a cache on loopback."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest

from maintainer.emulator import Fault, FaultPlan
from maintainer.errors import UsageError
from maintainer.graph.database import Database
from maintainer.serve.targets import read_targets
from maintainer.settings import load_settings
from tests.empty_database import need_sqlite, url_of, uses_postgresql
from tests.integration.service import PATIENCE, Place, Service, wait_until
from tests.integration.world import MAIN, World, a_world

pytestmark = pytest.mark.waits

EVERY_SECOND = """
[serve]
interval = "1s"
backoff_max = "1s"
"""
TWO_TARGETS = """
[serve]
interval = "1s"

[[targets]]
name = "own"
repository = "example/app"

[[targets]]
name = "stranger"
repository = "example/other"
"""
ONE_HOURLY = """
[[targets]]
name = "hourly"
repository = "example/app"
cron = "0 * * * *"
"""
OTHER_HOURLY = ONE_HOURLY.replace('"hourly"', '"other"').replace("/app", "/other")
FORBIDDEN = FaultPlan((Fault(kind="status", request="list", status=403),))
PATIENCE_PLEASE = FaultPlan((Fault(kind="status", request="list", status=429, retry_after=200),))
"""The store asks for more patience than somebody has who wants the process to end."""
NO_ANSWER = FaultPlan((Fault(kind="stall", request="list", seconds=200),))
"""It asks for none, so the next run need not wait."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a cache in which two builds hide each other's."""
    with a_world(tmp_path) as world:
        _build(world)
        yield world


def _build(world: World) -> None:
    world.now = datetime.now(UTC)
    world.build("base", "api")
    world.build("base", "web")


@pytest.fixture
def place(tmp_path: Path, world: World) -> Place:
    """Return a folder for a service that maintains that cache, every second."""
    place = Place(tmp_path, world.running.environment(MAIN))
    place.configure(EVERY_SECOND)
    return place


def _overlapping(place: Place) -> list[tuple[object, object]]:
    """List the runs that began before the one before them had ended."""
    runs = place.runs()
    return [(a, b) for a, b in pairwise(runs) if a[3] is None or b[2] < a[3]]


def _next_run(place: Place) -> float:
    (status,) = place.statuses()
    return status.next_run_at.timestamp()


# Life.


@pytest.mark.each_database
def test_it_runs_by_itself_and_says_that_all_is_well(place: Place, world: World) -> None:
    with place.serving() as service:
        service.wait_until_ready()
        wait_until(lambda: len(place.runs()) >= 3)

        assert service.get("healthz").text == "ok\n"
        assert service.get("readyz").text == "ready\n"
        assert service.get("readyz", accept="application/json").json() == {
            "ready": True,
            "reasons": {},
        }
        assert service.end() == 0

    assert world.generations() == [1, 2, 3]
    assert {status for status, *_ in place.runs()} <= {"done", "interrupted"}
    assert not _overlapping(place)


def test_every_line_of_the_log_says_what_it_is_about(place: Place) -> None:
    with place.serving() as service:
        service.wait_until_ready()
        lines = service.lines()

    of_run = [line for line in lines if line.get("run") == 1]
    assert {line["target"] for line in of_run} == {"default"}
    assert {line.get("stage") for line in of_run} >= {"probe", "rewrite", "report"}
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert {line["level"] for line in lines} == {"info"}


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
def test_a_signal_ends_a_run_between_two_steps(
    place: Place, world: World, number: signal.Signals
) -> None:
    world.running.inject(PATIENCE_PLEASE)
    with place.serving() as service:
        wait_until(lambda: [run for run in place.runs() if run[0] == "running"])

        assert service.end(number) == 0

    assert [status for status, *_ in place.runs()] == ["interrupted"]
    assert place.statuses()[0].last_status == "interrupted"


def test_an_interrupted_run_is_due_at_once_when_it_serves_again(place: Place, world: World) -> None:
    place.configure('[serve]\ninterval = "1d"')
    world.running.inject(NO_ANSWER)
    with place.serving() as service:
        wait_until(lambda: [run for run in place.runs() if run[0] == "running"])
        service.end()
    world.running.inject()

    with place.serving() as service:
        service.wait_until_ready()

    assert [status for status, *_ in place.runs()] == ["interrupted", "done"]


@pytest.mark.soak
def test_a_run_that_was_killed_is_not_ready_when_it_serves_again(
    place: Place, world: World
) -> None:
    with place.serving() as service:
        service.wait_until_ready()
        world.running.inject(NO_ANSWER)
        wait_until(lambda: place.runs()[-1][0] == "running")
        number = len(place.runs())
        service.end(signal.SIGKILL)

    with place.serving() as service:
        ready = service.get("readyz")
        table = place.ask("schedule")

    assert ready.status_code == 503
    assert "the process was killed during the run" in ready.text
    assert f"failed (run {number})" in table.out
    assert place.runs()[number - 1][0] == "killed"


def test_the_schedule_survives_a_restart(place: Place) -> None:
    place.configure('[serve]\ninterval = "6h"')
    with place.serving() as service:
        service.wait_until_ready()
        before = _next_run(place)

    with place.serving() as service:
        assert service.is_ready()
        assert _next_run(place) == before

    assert len(place.runs()) == 1


def test_a_changed_rule_applies_after_a_restart(place: Place) -> None:
    place.configure('[serve]\ninterval = "6h"')
    with place.serving() as service:
        service.wait_until_ready()
    place.configure('[serve]\ninterval = "5h"')

    with place.serving():
        wait_until(lambda: len(place.runs()) == 2)

    assert place.statuses()[0].rule == "every 5h"


def test_a_second_service_on_the_same_database_is_told_so(place: Place) -> None:
    with place.serving() as service:
        service.wait_until_ready()

        done = place.run("serve", "--listen", "127.0.0.1:0")

    assert done.returncode == 1
    assert "another service works on the database" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_lock_that_cannot_be_opened_is_told_in_one_line(place: Place) -> None:
    need_sqlite()
    lock = place.path / "maintainer.db.serve.lock"
    lock.mkdir()

    done = place.ask("serve")

    assert done.status == 1
    assert "maintainer.db.serve.lock cannot be used: Is a directory" in done.err
    assert done.err.count("\n") == 1


# Configuration.


def test_sighup_reloads_the_configuration(place: Place) -> None:
    with place.serving() as service:
        service.wait_until_ready()
        place.configure(TWO_TARGETS)
        service.send(signal.SIGHUP)
        wait_until(lambda: service.says("the configuration is reloaded: 2 targets"))
        service.wait_until_ready()

        page = service.get("").text
        statuses = place.statuses()

    assert [status.name for status in statuses] == ["own", "stranger"]
    assert [status.target for status in statuses] == [
        "github:example/app",
        "github:example/other",
    ]
    assert 'href="/targets/own"' in page
    assert "default" not in page


def test_sighup_with_a_wrong_configuration_leaves_the_old_one(place: Place) -> None:
    with place.serving() as service:
        service.wait_until_ready()
        place.configure('[[targets]]\nname = "own"\nrepository = "example/app"\ncron = "x"')
        service.send(signal.SIGHUP)
        wait_until(
            lambda: service.says(
                "the old configuration stays: setting cron in [[targets]] number 1"
            )
        )
        runs = len(place.runs())
        wait_until(lambda: len(place.runs()) > runs)

        assert service.is_ready()
        assert "The configuration of before still applies: setting cron in" in service.get("").text
        assert "\nmaintainer_configuration_up 0.0\n" in service.get("metrics").text

        place.configure(TWO_TARGETS)
        service.send(signal.SIGHUP)
        wait_until(lambda: service.says("the configuration is reloaded: 2 targets"))
        assert "still applies" not in service.get("").text
        assert "\nmaintainer_configuration_up 1.0\n" in service.get("metrics").text


_REFUSE = (
    "CREATE TRIGGER refuse BEFORE INSERT ON scheduled WHEN NEW.name = 'stranger' "
    "BEGIN SELECT RAISE(ABORT, 'full'); END"
)
_REFUSE_ON_A_SERVER = "ALTER TABLE scheduled ADD CHECK (name <> 'stranger')"


@pytest.mark.each_database
def test_sighup_that_the_database_refuses_half_way_changes_nothing(place: Place) -> None:
    with place.serving() as service:
        service.wait_until_ready()
        place.change(_REFUSE_ON_A_SERVER if uses_postgresql() else _REFUSE)
        place.configure(TWO_TARGETS)
        service.send(signal.SIGHUP)
        wait_until(lambda: service.says("the old configuration stays: the database"))
        runs = len(place.runs())

        wait_until(lambda: len(place.runs()) >= runs + 2)
        assert [status.name for status in place.statuses()] == ["default"]
        assert service.is_ready()


def test_sighup_tells_of_what_needs_a_restart_only_while_it_does(place: Place) -> None:
    need_sqlite()
    with place.serving() as service:
        place.configure('database = "sqlite:///another.db"')
        service.send(signal.SIGHUP)
        wait_until(lambda: _times(service, "the configuration is reloaded") == 1)
        place.configure("")
        service.send(signal.SIGHUP)
        wait_until(lambda: _times(service, "the configuration is reloaded") == 2)

        assert _times(service, "a change of database needs a restart") == 1


def _times(service: Service, words: str) -> int:
    """Count the lines of the log that say something."""
    return sum(words in line["message"] for line in service.lines())


def test_sighup_while_it_still_starts_is_a_reload_once_it_serves(place: Place) -> None:
    with place.starting() as service:
        wait_until(lambda: "pydantic_core" in _mapped(service))
        service.send(signal.SIGHUP)
        service.wait_until_it_serves()

        wait_until(lambda: service.says("the configuration is reloaded: 1 target"))


def _mapped(service: Service) -> str:
    """List the libraries that a service has loaded."""
    return Path(f"/proc/{service.process.pid}/maps").read_text()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "[serve]\nlisten = '127.0.0.1'",
            "setting serve.listen (from FILE) is not a valid address",
        ),
        (
            "[serve]\nlisten = 'example.com:80'",
            "setting serve.listen (from FILE) is not a valid address",
        ),
        ("[serve]\nworkers = 3", "unknown key 'serve.workers'"),
        (
            "[serve]\ntimezone = 'Mars/Olympus'",
            "setting serve.timezone (from FILE) is not a valid time zone",
        ),
        ("[serve]\ninterval = '0s'", "setting serve.interval "),
        (
            "[[targets]]\nstore = 'local:a'",
            "setting name in [[targets]] number 1 (from FILE) is missing",
        ),
        (
            "[[targets]]\nname = 'a'",
            "setting [[targets]] a: repository or store must be set",
        ),
        (
            "[[targets]]\nname = '../a'\nrepository = 'a/b'",
            "setting name in [[targets]] number 1 ",
        ),
        (
            "[[targets]]\nname = 'a'\nrepository = 'a'",
            "setting repository in [[targets]] number 1 ",
        ),
        (
            f"{ONE_HOURLY}interval = '1h'",
            "setting [[targets]] number 1 (from FILE): cron and interval exclude",
        ),
        (
            f"{ONE_HOURLY}{ONE_HOURLY}",
            "setting targets (from FILE): there are 2 with the name hourly",
        ),
        (
            f"{ONE_HOURLY}token_env = 'NOT_SET'",
            "target hourly: token_env names NOT_SET, which is not set",
        ),
        (
            f"{ONE_HOURLY}token_env = 'NOT_SET'\n{OTHER_HOURLY}token_env = 'NOR_THIS'",
            "NOT_SET, which is not set; target other: token_env names NOR_THIS, which is not set",
        ),
        (
            f"{ONE_HOURLY}runtime_token_env = 'GITHUB_TOKEN'",
            "setting [[targets]] number 1 (from FILE): runtime_token_env needs results_url or",
        ),
        (
            f"{ONE_HOURLY}runtime_token_env = 'GITHUB_TOKEN'\ncache_url = 'http://127.0.0.1/'",
            "target hourly: GITHUB_TOKEN is not the runtime token of a workflow",
        ),
    ],
)
def test_what_is_wrong_in_the_configuration_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    place.configure(text)
    file = place.path / "maintainer.toml"

    with pytest.raises(UsageError) as caught:
        read_targets(load_settings(file, {}))

    assert why in str(caught.value).replace(str(file), "FILE")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[serve]\nworkers = 3", f"{ONE_HOURLY}token_env = 'NOT_SET'"])
def test_a_wrong_configuration_is_one_line_and_exit_status_2(place: Place, text: str) -> None:
    place = _elsewhere(place)
    place.configure(text)

    done = place.ask("serve")

    assert done.status == 2
    assert done.err.count("\n") == 1
    assert uses_postgresql() or not place.database.exists(), "there is nothing to keep yet"


def test_a_schedule_that_no_service_has_kept_yet_is_told_as_that(
    place: Place, world: World
) -> None:
    world.gc()
    elsewhere = _elsewhere(place)
    elsewhere.configure("")

    absent, empty = elsewhere.ask("schedule"), place.ask("schedule")

    assert absent.status == 2
    assert "run `maintainer serve` first" in absent.err
    assert empty.status == 0
    assert "start `maintainer serve`" in empty.out


def _elsewhere(place: Place) -> Place:
    """Return a place with the same cache, and no database yet."""
    (place.path / "elsewhere").mkdir()
    return Place(place.path / "elsewhere", place.environment)


def test_a_port_that_is_taken_is_told_in_one_line(place: Place) -> None:
    with place.serving() as service:
        address = service.url.removeprefix("http://").rstrip("/")
        other = _elsewhere(place)
        other.configure("")

        done = other.run("serve", "--listen", address)

    assert done.returncode == 1, "systemd would not try again"
    assert f"cannot listen on {address}: Address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_address_that_this_machine_has_not_may_be_there_later(place: Place) -> None:
    done = place.ask("serve", "--listen", "192.0.2.1:9309")

    assert done.status == 1
    assert "cannot listen on 192.0.2.1:9309: " in done.err
    assert done.err.count("\n") == 1


# What goes wrong.


def _waits(place: Place) -> timedelta:
    status = place.statuses()[0]
    if status.last_finished_at is None:
        return timedelta(0)
    return status.next_run_at - status.last_finished_at


def test_a_failing_target_is_told_and_tried_again_later_and_later(
    place: Place, world: World
) -> None:
    place.configure('[serve]\ninterval = "1s"\nbackoff_max = "1h"')
    world.running.inject(FORBIDDEN)
    with place.serving() as service:
        wait_until(lambda: place.statuses()[0].last_status == "failed")
        status = place.statuses()[0]
        table = place.ask("schedule")
        ready = service.get("readyz")
        as_json = service.get("readyz", accept="application/json")
        metrics = service.metrics()

    assert _waits(place) == timedelta(seconds=30)
    assert status.failures == 1
    assert status.problem
    assert "403" in status.problem
    assert "403" in table.out
    assert ready.status_code == as_json.status_code == 503
    assert ready.text.startswith("default: the last attempt failed: ")
    assert "403" in as_json.json()["reasons"]["default"]
    assert metrics["maintainer_target_up", "default"] == 0
    assert metrics["maintainer_consecutive_failures", "default"] == 1
    assert metrics["maintainer_runs_total", "failed", "default"] == 1


def test_a_target_that_does_well_again_is_green_again(place: Place, world: World) -> None:
    world.running.inject(FORBIDDEN)
    with place.serving() as service:
        wait_until(lambda: place.statuses()[0].failures >= 2)
        world.running.inject()

        service.wait_until_ready()

        assert place.statuses()[0].failures == 0


def test_a_service_that_starts_again_does_not_wait_for_the_backoff(
    place: Place, world: World
) -> None:
    place.configure('[serve]\ninterval = "6h"\nbackoff_max = "6h"')
    world.running.inject(FORBIDDEN)
    with place.serving():
        wait_until(lambda: place.statuses()[0].failures == 1)
    world.running.inject()

    with place.serving() as service:
        service.wait_until_ready()


def test_runs_do_not_overlap_however_long_they_take(place: Place, world: World) -> None:
    world.running.observe(before=lambda _: time.sleep(0.2))
    place.configure(TWO_TARGETS)
    with place.serving():
        wait_until(lambda: len(place.runs()) >= 4)

    assert not _overlapping(place)
    assert len({target for _, target, *_ in place.runs()}) == 2


def test_a_target_whose_time_has_not_come_is_ready_and_said_not_to_have_run(place: Place) -> None:
    place.configure(ONE_HOURLY)
    with place.serving() as service:
        ready = service.get("readyz")
        (status,) = json.loads(place.run("schedule", "--json").stdout)
        page = service.get("targets/hourly")
        index = service.get("")

    assert (ready.status_code, ready.text) == (200, "ready\n")
    assert '<span class="tone none">has not run yet</span>' in index.text
    assert "<h1>Nothing has run yet</h1>" in index.text
    assert status["next_run_at"].endswith(":00:00Z")
    assert "<h1>Not known yet</h1>" in page.text
    assert "There is no report yet: it has not run yet." in page.text
    assert '<tr><th scope="row">runs</th><td>cron 0 * * * *' in page.text


@pytest.mark.each_database
def test_a_run_that_does_not_begin_is_overdue(place: Place) -> None:
    place.configure('[serve]\ninterval = "6h"')
    with place.serving() as service:
        service.wait_until_ready()
        place.change("UPDATE scheduled SET due_at = 1767225600000000")

        ready = service.get("readyz")

        assert (ready.status_code, ready.text) == (
            503,
            "default: its run is overdue since 2026-01-01 00:00:00 UTC\n",
        )
        assert service.metrics()["maintainer_target_overdue", "default"] == 1


# Another repository's cache.


def test_a_target_without_its_token_fails_alone(place: Place) -> None:
    place.configure(f"{TWO_TARGETS}token_env = 'NOT_SET'\n")
    with place.serving() as service:
        wait_until(lambda: all(status.last_status for status in place.statuses()))
        ready, index = service.get("readyz"), service.get("").text
        page = service.get("targets/stranger").text
        metrics = service.metrics()

    why = "token_env names NOT_SET, which is not set"
    assert ready.status_code == 503
    assert ready.text == f"stranger: the last attempt failed: target stranger: {why}\n"
    assert (
        metrics["maintainer_target_up", "own"],
        metrics["maintainer_target_up", "stranger"],
    ) == (
        1,
        0,
    )
    assert metrics["maintainer_verdict", "bad", "stranger"] == 1
    # Problems come first.
    assert index.index("/targets/stranger") < index.index("/targets/own")
    assert why in index
    assert "<h1>Failing</h1>" in page
    assert f"There is no report yet: the last attempt failed: target stranger: {why}." in page
    assert "<strong>To do:</strong>" in page
    assert '<a href="/">all targets</a>' in page
    assert "next attempt</th><td title=" in page


def test_without_a_runtime_token_a_target_is_only_told_of(place: Place, world: World) -> None:
    place.configure(TWO_TARGETS)
    before = len(world.entries())
    with place.serving() as service:
        service.wait_until_ready()
        stranger = service.get("targets/stranger").text
        metrics = service.metrics()
        statuses = place.statuses()

    assert "Without a runtime token this run could only list entries" in stranger
    assert metrics["maintainer_stored_entries", "unreadable ref", "stranger"] in {
        before,
        before + 1,
        before + 2,
    }
    assert metrics["maintainer_stored_entries", "newest", "own"] == 2  # the index, and the merge
    assert {status.problem for status in statuses} == {None}
    ours = place.query("SELECT DISTINCT kind FROM actions WHERE target = 'github:example/other'")
    assert {kind for (kind,) in ours} <= {"keep"}


# Once.


def test_once_runs_what_is_due_and_nothing_else(place: Place) -> None:
    place.configure(f"{TWO_TARGETS.replace('1s', '6h')}{ONE_HOURLY.replace('/app', '/third')}")

    first = place.run("serve", "--once")
    second = place.run("serve", "--once")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert [target for _, target, *_ in place.runs()] == [
        "github:example/app",
        "github:example/other",
    ]
    assert [status.last_status for status in place.statuses()] == ["done", "done", None]


def test_once_tells_by_its_exit_status_that_a_run_failed(place: Place, world: World) -> None:
    world.running.inject(FORBIDDEN)

    done = place.run("serve", "--once")

    assert done.returncode == 1
    assert "403" in done.stderr


@pytest.mark.each_database
def test_once_runs_what_a_service_has_left(place: Place) -> None:
    place.configure('[serve]\ninterval = "6h"')
    with place.serving() as service:
        service.wait_until_ready()
    place.change("UPDATE scheduled SET due_at = 1767225600000000")

    assert place.run("serve", "--once").returncode == 0

    assert len(place.runs()) == 2
    assert _next_run(place) > datetime.now(UTC).timestamp()


@pytest.mark.soak
def test_once_ends_soon_after_a_signal_though_a_request_hangs(place: Place, world: World) -> None:
    world.running.inject(PATIENCE_PLEASE)
    process = subprocess.Popen(
        place.command("serve", "--once"),
        cwd=place.path,
        env=place.variables(),
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: place.database.exists() and _is_running(place))

    process.terminate()

    try:
        assert process.wait(PATIENCE / 2) == 1
    finally:
        process.kill()
    assert [status for status, *_ in place.runs()] == ["interrupted"]
    assert place.statuses()[0].last_status == "interrupted"


def _is_running(place: Place) -> bool:
    with closing(Database(url_of(place.database))) as database:
        return database.revision() is not None and any(
            status == "running" for status, *_ in place.runs()
        )


# Pages.


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service that has run once; the tests below only read."""
    path = tmp_path_factory.mktemp("served")
    with a_world(path) as world:
        _build(world)
        world.passes(hours=-1)
        world.build("base", scope="earlier")
        place = Place(path, world.running.environment(MAIN))
        place.configure('[serve]\ninterval = "6h"\nhosts = ["cache.example"]')
        with place.serving() as service:
            service.wait_until_ready()
            yield service


def test_the_report_of_each_target_and_run_is_a_page(served: Service) -> None:
    index = served.get("")
    target = served.get("targets/default")
    run = served.get("runs/1")

    assert 'href="/targets/default"' in index.text
    assert 'href="/runs/1"' in index.text
    assert target.text == run.text
    assert '<a href="/">all targets</a>' in run.text
    assert '<a href="/targets/default">last report of default</a>' in run.text
    assert '<a href="/targets/default">github:example/app</a>' in index.text
    assert "<h1>Healthy</h1>" in index.text
    assert "<title>Healthy" in run.text
    assert "What would a cache of another size keep?" in run.text
    assert served.get("runs/1.json").json()["target"] == "github:example/app"
    for page in (index, run):
        assert page.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    [
        "runs/2",
        "runs/2.json",
        "targets/other",
        "nothing",
        "runs/x",
        f"runs/{2**63}",
        f"runs/{2**63}.json",
        f"runs/{'9' * 5_000}",
    ],
)
def test_what_is_not_there_is_not_found(served: Service, path: str) -> None:
    line = served.get(path)
    page = served.get(path, accept="text/html,*/*;q=0.8")

    assert line.status_code == page.status_code == 404
    assert line.text.startswith(("There is no", "The database has no run "))
    assert "<h1>Not found</h1>" in page.text
    assert '<a href="/">all targets</a>' in page.text


@pytest.mark.parametrize("path", ["", "runs/1", "metrics", "readyz", "healthz", "nothing"])
def test_every_answer_is_closed_to_strangers(served: Service, path: str) -> None:
    headers = served.get(path).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed_from_outside(served: Service, method: str) -> None:
    answer = httpx2.request(method, f"{served.url}runs/1", timeout=PATIENCE)

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_get_without_a_body(served: Service) -> None:
    answer = httpx2.head(f"{served.url}runs/1", timeout=PATIENCE)

    assert answer.status_code == 200
    assert answer.content == b""


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:9309", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:1", 200),
        ("[::1]:9309", 200),
        ("cache.example:80", 200),
        ("Cache.Example", 200),
        ("localhost:", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.0.2.1", 421),
        ("[::2]", 421),
        ("[", 421),
        ("", 421),
        ("127.0.0.1:9309@evil.example", 421),
        ("127.0.0.1:abc", 421),
        ("[::1]evil.example", 421),
        ("[::1]:9309@evil.example", 421),
    ],
)
def test_only_our_own_names_are_answered(served: Service, host: str, status: int) -> None:
    assert served.get("", host=host).status_code == status


def test_the_metrics_tell_what_the_last_run_found(served: Service) -> None:
    metrics = served.metrics()

    name = "default"
    assert metrics["maintainer_target_up", name] == 1
    assert metrics["maintainer_runs_total", "done", name] == 1
    assert metrics["maintainer_stored_entries", "reachable", name] == 3
    assert metrics["maintainer_stored_entries", "superseded", name] == 2
    assert metrics["maintainer_stored_bytes", "reachable", name] == sum(
        1_000 + len(step) for step in ("base", "api", "web")
    )
    assert metrics["maintainer_last_run_requests", "list", name] >= 1
    assert metrics["maintainer_last_run_retries", name] == 0
    assert metrics["maintainer_last_run_blobs_gone", name] == 0
    assert metrics["maintainer_indexes_broken", name] == 0
    assert metrics["maintainer_results_usable", name] > 0
    assert (
        metrics["maintainer_results_possible", name] >= metrics["maintainer_results_usable", name]
    )
    assert metrics["maintainer_quota_bytes", name] == 10 * 10**9
    levels = {one: metrics["maintainer_verdict", one, name] for one in ("good", "attention", "bad")}
    assert levels == {"good": 1, "attention": 0, "bad": 0}
    succeeded_at = metrics["maintainer_last_success_timestamp_seconds", name]
    assert 0 <= datetime.now(UTC).timestamp() - succeeded_at < PATIENCE
    assert metrics["maintainer_last_run_duration_seconds", name] > 0
    now = datetime.now(UTC).timestamp()
    assert metrics["maintainer_next_run_timestamp_seconds", name] > now


def test_the_metrics_count_the_blobs_that_no_run_deleted(place: Place, world: World) -> None:
    with place.serving() as service:
        service.wait_until_ready()
        world.evict("web")
        # One number for each run: the next one has nothing to tell any more.
        pruned = wait_until(
            lambda: max(
                service.metrics()["maintainer_last_run_blobs_gone", "default"],
                _evicted(place),
            )
        )

    assert pruned == 1


def _evicted(place: Place) -> float:
    query = "SELECT count(*) FROM entries WHERE kind = 'blob' AND state = 'evicted'"
    return float(place.query(query)[0][0])


def test_no_token_is_in_any_page_or_log(served: Service) -> None:
    pages = [served.get(path).text for path in ("", "runs/1", "runs/1.json", "metrics", "readyz")]
    secrets = [value for name, value in served.place.environment.items() if name.endswith("TOKEN")]

    assert len(secrets) == 2
    for text in (*pages, served.log.read_text()):
        assert not [secret for secret in secrets if secret in text]


def test_another_address_than_loopback_is_told_in_the_log(place: Place) -> None:
    process = subprocess.Popen(
        place.command("serve", "--listen", "0.0.0.0:0"),
        cwd=place.path,
        env=place.variables(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    first = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=PATIENCE)

    assert "it is not loopback" in first
