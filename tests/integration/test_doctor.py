"""`maintainer doctor`: what it finds out about a set-up, and that it changes nothing."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from maintainer.emulator import ActionsCache, serve_in_thread
from maintainer.emulator.server import Running
from maintainer.graph.database import Database
from maintainer.settings import load_settings
from maintainer.setup.doctor import Diagnosis, examine
from tests.acceptance.action import EXAMPLES
from tests.commands import run_here
from tests.empty_database import make_empty
from tests.privileges import bound_by_modes
from tests.snapshots import MAIN
from tests.stores.docker_registry import a_registry


@pytest.fixture
def running() -> Iterator[Running]:
    cache = ActionsCache()
    cache.put("setup-node-0a1b", b"theirs", ref=MAIN, version="0" * 64)
    with serve_in_thread(cache) as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    return tmp_path


def _add(repository: Path, name: str, text: str) -> None:
    (repository / ".github" / "workflows" / name).write_text(text)


def _levels(diagnosis: Diagnosis) -> dict[str, str]:
    return {one.subject: str(one.level) for one in diagnosis.findings}


def _examine(
    folder: Path,
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Diagnosis:
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        return anyio.run(examine, load_settings(None, {}), folder, clock)


def test_a_set_up_that_is_complete_has_no_problems_and_stays_as_it_is(
    running: Running, repository: Path
) -> None:
    for example in EXAMPLES.glob("*.yml"):
        shutil.copy(example, repository / ".github" / "workflows")
    before = running.call(lambda cache: cache.entries())
    room = {"MAINTAINER_ROOM": '{"closed_refs": true}'}

    outcome = run_here(repository, running.environment(MAIN) | room, "doctor", "--json")

    assert outcome.status == 0, outcome.out
    found = {one["subject"]: one["level"] for one in outcome.json["findings"]}
    assert found.pop("database") == "note"
    assert set(found.values()) == {"ok"}
    assert found.keys() >= {
        *("runtime token", "cache service", "list", "deletion", "clock", "quota", "rate limit"),
        *("closed refs", "workflows", "build-images.yml:39"),
    }
    exports = [one for one in outcome.json["caches"] if one["exports"]]
    assert [one["attributes"] for one in exports] == [{"mode": "max"}]
    assert running.call(lambda cache: cache.entries()) == before
    assert {one.name for one in repository.iterdir()} == {".git", ".github"}


def test_of_another_store_it_says_what_it_has_not_tried_and_nothing_of_githubs_cache(
    repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "registry").mkdir()
    with a_registry(tmp_path / "registry") as registry:
        registry.build("api", "base", "api")
        store = f"registry://{registry.host}/{registry.repository}?insecure=true"

        outcome = run_here(repository, {}, "doctor", "--json", "--store", store)

    assert outcome.status == 0, outcome.out
    found = [(one["subject"], one["level"]) for one in outcome.json["findings"]]
    assert found == [("registry", "ok"), ("registry", "note"), ("database", "note")]
    assert "was not tried" in outcome.json["findings"][1]["sentence"]


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    outcome = run_here(tmp_path, {}, "doctor")

    assert outcome.status == 1
    lines = outcome.out.splitlines()
    assert lines[0].startswith("problem  token: GITHUB_TOKEN is not set")
    assert "gh auth token" in lines[1]
    assert "runtime token" in outcome.out
    assert lines[-1] == "2 problems and 2 notes."


def test_a_database_of_a_newer_version_is_a_problem_as_every_run_refuses_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/maintainer.db"
    with closing(Database(url)) as database:
        database.upgrade()
        with database.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")

    outcome = run_here(tmp_path, {"MAINTAINER_DATABASE": url}, "doctor")

    (line,) = (one for one in outcome.out.splitlines() if "database" in one)
    assert line.startswith("problem  database: ")
    assert "was made by a newer version: upgrade maintainer" in line


def test_a_file_without_tables_is_no_problem_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "maintainer.db"
    file.touch()

    outcome = run_here(tmp_path, {"MAINTAINER_DATABASE": f"sqlite:///{file}"}, "doctor")

    (line,) = (one for one in outcome.out.splitlines() if "database" in one)
    assert line.startswith("note")
    assert line.endswith("has no tables yet: a run makes them")
    assert file.read_bytes() == b""


def test_a_file_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "maintainer.db"
    make_empty(file)
    file.chmod(0o400)

    with bound_by_modes():
        outcome = run_here(tmp_path, {"MAINTAINER_DATABASE": f"sqlite:///{file}"}, "doctor")

    (line,) = (one for one in outcome.out.splitlines() if "database" in one)
    assert line.startswith("problem  database: ")
    assert "attempt to write a readonly database" in line


def test_a_wrong_token_and_a_wrong_clock_are_problems(
    running: Running, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = running.environment(MAIN)
    ahead = _examine(
        repository, variables, monkeypatch, lambda: datetime.now(UTC) + timedelta(hours=1)
    )
    assert {k for k, level in _levels(ahead).items() if level == "problem"} == {"clock"}
    (clock,) = (one for one in ahead.findings if one.subject == "clock")
    assert "60 minutes ahead of GitHub's" in clock.sentence or "59 min" in clock.sentence

    refused = _examine(repository, variables | {"GITHUB_TOKEN": "ghs_wrong"}, monkeypatch)
    assert _levels(refused)["list"] == "problem"
    assert "deletion" not in _levels(refused)
    assert "ghs_wrong" not in repr(refused)

    later = _examine(
        repository, variables, monkeypatch, lambda: datetime.now(UTC) + timedelta(days=2)
    )
    assert [one.sentence[:13] for one in later.findings if one.subject == "runtime token"] == [
        "it expired at",
        "it may write ",
    ]


def test_workflows_that_export_badly_are_named(
    running: Running, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(repository, "a.yml", "  cache-to: type=gha,scope=maintained,mode=max\n")
    _add(repository, "b.yml", "  cache-from: type=gha\n  cache-to: type=gha,scope=\x1b[31m\n")

    levels = _levels(_examine(repository, running.environment(MAIN), monkeypatch))

    assert levels["workflows"] == "note"
    assert levels["a.yml:1"] == "problem"
    assert levels["b.yml:2"] == "note"
    assert levels["b.yml"] == "note"
    text = run_here(repository, running.environment(MAIN), "doctor").out
    assert all(line.isprintable() for line in text.splitlines())


def test_every_target_of_the_service_is_checked(
    running: Running, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = running.environment(MAIN)
    (repository / "my.toml").write_text(
        '[[targets]]\nname = "app"\nrepository = "octo/app"\n'
        '[[targets]]\nname = "disk"\nstore = "local:nowhere"\n'
        '[[targets]]\nname = "site"\nrepository = "octo/site"\ntoken_env = "SITE_TOKEN"\n'
    )

    levels = _levels(
        _examine(repository, variables | {"MAINTAINER_CONFIG": "my.toml"}, monkeypatch)
    )

    assert levels["app: list"] == "ok"
    assert levels["disk: local"] == "problem"
    assert levels["site: token"] == "problem"
