"""The workflows to copy, run by `act` on the emulator: see `action.py` for what is real in them."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import IndexKey, parse_key
from maintainer.demo import load_history, seed
from maintainer.emulator import ActionsCache, serve_in_thread
from maintainer.emulator.server import Running
from maintainer.report.page import QUESTIONS
from tests.acceptance.action import (
    EXAMPLES,
    ROOT,
    Newcomer,
    Ran,
    fetch_wheels,
    fill_in,
    make_newcomer,
)
from tests.stores.docker_registry import a_registry
from tests.third_party.github_client import install_github_client

pytestmark = pytest.mark.waits

_BUILDS = (EXAMPLES / "build-images.yml").read_text()
_MERGE = "\n  maintain:\n" + fill_in(_BUILDS).partition("\n  maintain:\n")[2]
_EXPORT = "          cache-to: type=gha,mode=max\n"


@pytest.fixture(scope="session")
def wheels(request: pytest.FixtureRequest) -> Path:
    return fetch_wheels(request.config.cache.mkdir("action-wheels"))


@pytest.fixture(scope="session")
def client(request: pytest.FixtureRequest) -> Path:
    return install_github_client(request.config.cache.mkdir("third-party"))


def _stored(running: Running) -> dict[int, str]:
    return running.call(lambda cache: {entry.id: entry.key for entry in cache.entries()})


@dataclass(frozen=True)
class Told:
    """What came of a workflow, and what was stored before and after."""

    ran: Ran
    before: dict[int, str]
    after: dict[int, str]

    @property
    def written(self) -> list[str]:
        """The keys of what was written, in order."""
        return [self.after[one] for one in self.after if one not in self.before]


@dataclass(frozen=True)
class Days:
    """What a newcomer lives through: a run by the schedule, then builds with a merge after them."""

    newcomer: Newcomer
    first: Told
    builds: Told


def _run(newcomer: Newcomer, event: str, *options: str) -> Told:
    before = _stored(newcomer.running)
    ran = newcomer.runs(event, *options)
    return Told(ran, before, _stored(newcomer.running))


@pytest.fixture
def newcomer(tmp_path: Path, wheels: Path, client: Path) -> Iterator[Newcomer]:
    """Return somebody whose cache has seen some builds of four images."""
    cache = ActionsCache()
    ends_at = datetime.now(UTC) - timedelta(hours=30)
    seed(cache, load_history()[:200], ends_at=ends_at, lasted=timedelta(days=5))
    with serve_in_thread(cache) as running:
        newcomer = make_newcomer(tmp_path, running, wheels, client)
        newcomer.copies("maintain-cache.yml")
        yield newcomer


@pytest.fixture
def days(newcomer: Newcomer) -> Days:
    """Run it by its schedule, then build two images."""
    first = _run(newcomer, "schedule")
    newcomer.copies("build-images.yml")
    return Days(newcomer, first, _run(newcomer, "push"))


def a_scheduled_run_passes_merges_and_deletes(days: Days) -> None:
    assert days.first.ran.status == 0, days.first.ran.log
    outputs = days.first.ran.outputs
    assert outputs["status"] == "done"
    assert outputs["verdict"] == "good"
    written = [key for key in days.first.written if isinstance(parse_key(key), IndexKey)]
    assert len(written) == int(outputs["indexes-written"]) > 1
    gone = days.first.before.keys() - days.first.after.keys()
    assert len(gone) == int(outputs["entries-deleted"]) > 1
    assert int(outputs["bytes-freed"]) > len(gone)


def the_summary_answers_all_the_questions(days: Days) -> None:
    for heading in ("## ✅", *(f"### {question}" for question in QUESTIONS[1:])):
        assert heading in days.first.ran.summary


def the_report_is_left_as_a_page(days: Days) -> None:
    assert days.first.ran.outputs["report-path"].endswith("/maintainer-report.html")


def the_database_is_kept_from_run_to_run_under_a_key_of_its_own(days: Days) -> None:
    others = [key for key in days.first.written if parse_key(key) is None]
    assert [key.startswith("maintainer-db#") for key in others] == [True]
    runs = [int(told.ran.outputs["run"]) for told in (days.first, days.builds)]
    assert runs[1] == runs[0] + 1
    assert [key for key in days.builds.written if parse_key(key) is None] == [], "by its setting"


def both_images_find_their_cache_whatever_is_exported_later(days: Days) -> None:
    assert days.builds.ran.status == 0, days.builds.ran.log
    builder = days.newcomer
    assert sorted(builder.builds()) == ["api built", "web built"]

    # An export after the merge hides nothing of it.
    known = len(builder.builds())
    builder.copies("build-images.yml", without=[_MERGE])
    assert builder.runs("push").status == 0
    assert sorted(builder.builds()[known:]) == ["api cached", "web cached"]
    assert _reads_only(builder) == ["api cached", "web cached"]


def no_token_is_in_any_line_of_a_log(days: Days) -> None:
    assert len(days.newcomer.secrets) >= 3
    for told in (days.first, days.builds):
        assert [secret for secret in days.newcomer.secrets if secret in told.ran.log] == []


def test_from_an_empty_repository_to_builds_that_find_each_others_cache(
    days: Days, subtests: pytest.Subtests
) -> None:
    for check in (
        a_scheduled_run_passes_merges_and_deletes,
        the_summary_answers_all_the_questions,
        the_report_is_left_as_a_page,
        the_database_is_kept_from_run_to_run_under_a_key_of_its_own,
        both_images_find_their_cache_whatever_is_exported_later,
        no_token_is_in_any_line_of_a_log,
    ):
        with subtests.test(check.__name__.replace("_", " ")):
            check(days)


@pytest.mark.soak
def test_a_second_scheduled_run_finds_nothing_to_do(newcomer: Newcomer) -> None:
    assert newcomer.runs("schedule").status == 0

    second = _run(newcomer, "schedule")

    assert second.ran.status == 0, second.ran.log
    outputs = second.ran.outputs
    assert outputs["indexes-written"] == outputs["entries-deleted"] == "0"
    assert [key.startswith("maintainer-db#") for key in second.written] == [True]


@pytest.mark.soak
def test_a_dry_run_by_hand_changes_nothing_and_announces_what_a_run_then_writes(
    newcomer: Newcomer,
) -> None:
    dry = _run(newcomer, "workflow_dispatch", "--input=dry-run=true")

    assert dry.ran.status == 0, dry.ran.log
    assert dry.after == dry.before
    outputs = dry.ran.outputs
    assert outputs["status"] == "done"
    assert outputs["indexes-written"] == outputs["entries-deleted"] == "0"
    # Not what it deletes: that the dry run read them has made superseded indexes look used.
    planned = re.search(
        r"would write (\d+) indexes and delete (\d+ entries|nothing)", dry.ran.summary
    )
    assert planned
    assert planned[1] == _run(newcomer, "schedule").ran.outputs["indexes-written"]


@pytest.fixture
def builder(tmp_path: Path, wheels: Path, client: Path) -> Iterator[Newcomer]:
    """Return somebody with two images in one scope, whose cache is empty."""
    with serve_in_thread(ActionsCache()) as running:
        yield make_newcomer(tmp_path, running, wheels, client)


def _reads_only(builder: Newcomer) -> list[str]:
    """Build both images without an export, as pull requests do; tell what they find."""
    builder.copies("build-images.yml", without=[_MERGE, _EXPORT])
    known = len(builder.builds())
    assert builder.runs("push").status == 0
    return sorted(builder.builds()[known:])


@pytest.mark.soak
def test_without_the_action_only_the_image_that_was_built_last_finds_its_cache(
    builder: Newcomer,
) -> None:
    builder.copies("build-images.yml", without=[_MERGE])
    assert builder.runs("push").status == 0
    assert _reads_only(builder) in (["api built", "web cached"], ["api cached", "web built"])


@pytest.mark.soak
def test_the_workflow_for_a_registry_merges_its_tags(builder: Newcomer, tmp_path: Path) -> None:
    text = (EXAMPLES / "maintain-registry.yml").read_text()
    login, here = re.search(r" +- name: Log in .*?\n\n", text, re.DOTALL), tmp_path / "registry"
    assert login
    here.mkdir()
    with a_registry(here) as registry:
        for tag in ("api", "web"):
            registry.build(tag, "base", tag)
        place = f"{registry.host}/{registry.repository}?insecure=true"
        for old, new in ((login[0], ""), ("ghcr.io/octo/app-cache", place)):
            assert old in text
            text = text.replace(old, new)
        builder.act.add("maintain-registry.yml", fill_in(text))

        told = _run(builder, "schedule")

        assert told.ran.status == 0, told.ran.log
        both = registry.blobs_of("api") | registry.blobs_of("web")
        assert registry.blobs_of("maintained") >= both
    assert told.ran.outputs["indexes-written"] == "1"
    assert [key.startswith("maintainer-registry#") for key in told.written] == [True]


@pytest.mark.soak
def test_the_page_leads_from_an_empty_folder_to_a_workflow_that_passes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "action.md").read_text()
    (block,) = re.findall(r"```sh\n(mkdir -p \.\./my-repository.*?)```", text, re.DOTALL)
    commands = block.replace("../my-repository", str(tmp_path / "my-repository"))
    assert "../" not in commands
    ran = subprocess.run(
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            commands.replace("make act", "make -o .venv/.installed act"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.count("Job succeeded") == 4, "of maintain-cache, and three of build-images"
