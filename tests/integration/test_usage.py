"""`maintainer usage` says where the space goes, with nothing but a token."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from maintainer.emulator import ActionsCache, Fault, FaultPlan, Running, serve_in_thread
from maintainer.report.usage import Usage
from maintainer.sanitize import is_unicode
from maintainer.stores.http.retry import HASTY
from tests.commands import Outcome, run_here
from tests.nasty import NASTY

MAIN, TOPIC, PULL = "refs/heads/main", "refs/heads/topic", "refs/pull/7/merge"
NODE, RUST = "setup-node-Linux-x64-", "v0-rust-test-"
NOW = datetime.now(UTC)
MB = 10**6
_SENDABLE = [name for name, text in NASTY.items() if is_unicode(text)]
_SENT = [_SENDABLE[at : at + 5] for at in range(0, len(_SENDABLE), 5)]
"""What a service can send, a few together: all of them would not be shown."""


@pytest.fixture
def cache() -> ActionsCache:
    """Fill a cache: a week of setup-node, an old entry of rust, a closed pull request, a build."""
    cache = ActionsCache()
    for day in range(4):
        at = NOW - timedelta(days=day)
        cache.put(f"{NODE}{day}", ref=MAIN, size=50 * MB, created_at=at)
    old = NOW - timedelta(days=6)
    cache.put(f"{RUST}1", ref=TOPIC, size=70 * MB, created_at=old)
    cache.put(f"{NODE}9", ref=PULL, size=30 * MB, created_at=old)
    digest = f"sha256:{0:064x}"
    cache.put(f"buildkit-blob-1-{digest}", ref=MAIN, size=400 * MB, created_at=old)
    cache.put("index-web-1-49c8f7d5#1", ref=MAIN, size=2 * MB, created_at=old)
    cache.repository.close(7, old)
    return cache


@pytest.fixture
def running(cache: ActionsCache) -> Iterator[Running]:
    with serve_in_thread(cache) as running:
        yield running


Shell = Callable[..., Outcome]


@pytest.fixture
def shell(running: Running, tmp_path: Path) -> Shell:
    """Return a shell with a token, and no runtime token."""
    environment = running.environment(MAIN)
    variables = {k: v for k, v in environment.items() if not k.startswith("ACTIONS_")}

    def run(*arguments: str, **more: str) -> Outcome:
        outcome = run_here(tmp_path, variables | more, *arguments)
        assert list(tmp_path.iterdir()) == []
        return outcome

    return run


def measured(shell: Shell, *options: str) -> Usage:
    outcome = shell("usage", "--json", *options)
    assert outcome.status == 0, outcome.err
    return msgspec.json.decode(outcome.out, type=Usage)


def sizes(parts: tuple[object, ...]) -> dict[str, tuple[int, int]]:
    return {p.name: (p.entries, p.size // MB) for p in parts}  # type: ignore[attr-defined]


def test_it_divides_the_space_by_tool_ref_and_scope(shell: Shell) -> None:
    usage = measured(shell)

    assert usage.target == "github:example/app"
    assert (usage.entries, usage.used) == (8, 702 * MB)
    assert usage.quota == 10 * 10**9
    assert sizes(usage.tools) == {
        "BuildKit": (2, 402),
        "setup-node-": (5, 230),
        "v0-rust-": (1, 70),
    }
    assert sizes(usage.kinds) == {"branches": (7, 672), "pull requests": (1, 30)}
    assert sizes(usage.refs) == {MAIN: (6, 602), TOPIC: (1, 70), PULL: (1, 30)}
    assert sizes(usage.scopes) == {"web": (1, 2)}
    assert [ref.name for ref in usage.refs if ref.closed] == [PULL]
    assert usage.notes == ()


def test_it_says_what_each_policy_would_free(shell: Shell) -> None:
    freed = {one.name: (one.entries, one.size // MB) for one in measured(shell).policies}

    assert freed == {
        '[room.rules] prefix = "setup-node-", keep_newest = 2': (2, 100),
        '[room.rules] prefix = "v0-rust-", unused_for = "5d"': (1, 70),
        "[room] closed_refs = true": (1, 30),
        '[room.rules] prefix = "setup-node-", unused_for = "5d"': (1, 30),
    }
    assert list(freed.values()) == sorted(freed.values(), key=lambda one: -one[1])


def test_it_is_a_page_for_people(shell: Shell) -> None:
    outcome = shell("usage")

    assert outcome.status == 0
    assert outcome.err == ""
    assert "github:example/app: 702 MB of 10.0 GB are used (7.0 %), by 8 entries." in outcome.out
    [line] = [line for line in outcome.out.splitlines() if PULL in line]
    assert line.split()[-1] == "closed"
    assert "[room] closed_refs = true" in outcome.out


def test_it_shows_another_repository(shell: Shell) -> None:
    assert measured(shell, "-R", "octo/other").target == "github:octo/other"


def test_without_a_network_nobody_waits_long(shell: Shell) -> None:
    outcome = shell("usage", GITHUB_API_URL="http://127.0.0.1:9")

    assert outcome.status == 1
    retried, failed = outcome.err.splitlines()
    assert "Connection refused; retrying" in retried
    assert failed.endswith("failed: Connection refused")


def test_a_server_that_says_nothing_is_given_up_in_one_line(
    shell: Shell, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    running.observe(before=lambda request: asked.append(request.kind))
    running.inject(FaultPlan((Fault(kind="stall"),)))
    assert HASTY.silence <= timedelta(seconds=15)
    soon = replace(HASTY, silence=timedelta(seconds=0.3))
    monkeypatch.setattr("maintainer.stores.http.retry.HASTY", soon)

    outcome = shell("usage")

    assert outcome.status == 1
    [line] = outcome.err.splitlines()
    assert line.endswith("failed: timed out")
    assert asked == ["list"]


def test_it_reads_and_changes_nothing_even_with_a_runtime_token(
    shell: Shell, running: Running, cache: ActionsCache
) -> None:
    kinds: list[str] = []
    before = cache.entries()
    running.observe(before=lambda request: kinds.append(request.kind))
    ours = {k: v for k, v in running.environment(MAIN).items() if k.startswith("ACTIONS_")}

    assert shell("usage", "--json", **ours).status == 0

    assert set(kinds) == {"list", "refs", "limit"}
    assert cache.entries() == before


def test_without_permissions_it_says_what_it_does_not_know(
    shell: Shell, cache: ActionsCache
) -> None:
    cache.repository.permissions.clear()

    usage = measured(shell)

    assert not any(ref.closed for ref in usage.refs)
    assert "pull-requests: read" in usage.notes[0]
    assert "Note: it is not known" in shell("usage").out


def test_an_empty_cache_takes_no_space(shell: Shell, cache: ActionsCache) -> None:
    cache.clear()

    assert measured(shell).refs == ()
    assert "No policy for a full cache would free anything." in shell("usage").out


def test_only_the_largest_are_shown_to_people(shell: Shell, cache: ActionsCache) -> None:
    for number in range(30):
        cache.put("key", ref=f"refs/heads/{number}", size=1)

    assert "… and 23 more: see --json" in shell("usage").out
    assert len(measured(shell).refs) == 33


@pytest.mark.parametrize("names", _SENT, ids=" ".join)
def test_names_of_strangers_are_harmless(
    shell: Shell, cache: ActionsCache, names: Sequence[str]
) -> None:
    cache.clear()
    for name in names:
        cache.put(NASTY[name], ref=f"refs/heads/{NASTY[name]}", size=1)

    shown = shell("usage")

    assert shown.status == 0
    assert shown.out.replace("\n", "").isprintable()
    assert "more: see --json" not in shown.out, "all of them are shown"
    assert measured(shell).entries == len(names)


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        (["-R", "nonsense"], {}, "--repository is not a valid repository; use OWNER/NAME"),
        ([], {"GITHUB_TOKEN": ""}, "no cache to work on: set "),
        (
            ["-R", "a/b"],
            {"GITHUB_TOKEN": ""},
            "GITHUB_TOKEN is not set: `gh auth token` prints one",
        ),
        ([], {"GITHUB_TOKEN": "wrong"}, "GitHub's API refused the list of caches (HTTP 401)"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    shell: Shell, arguments: list[str], variables: dict[str, str], problem: str
) -> None:
    outcome = shell("usage", *arguments, **variables)

    assert outcome.status != 0
    assert outcome.problem.startswith(problem)


def test_a_cache_that_cannot_be_listed_is_said_so(shell: Shell, running: Running) -> None:
    ours = {k: v for k, v in running.environment(MAIN).items() if k.startswith("ACTIONS_")}

    outcome = shell("usage", **ours, GITHUB_TOKEN="")

    assert outcome.status == 2
    assert outcome.problem.startswith("this cache cannot be listed")
