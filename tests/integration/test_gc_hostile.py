"""A run over a cache full of names that somebody chose who wishes us no good."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import IndexId, Ref, Scope, encode
from maintainer.emulator import Entry, Request
from tests import processes
from tests.commands import Outcome, run_here
from tests.integration.world import MAIN, World, a_world, blob_of, built, leads_to
from tests.nasty import NASTY

# Half of a surrogate pair is nothing that JSON or HTTP can carry, and no key is empty or blank.
NAMES = sorted(name for name in NASTY.values() if name.strip() and "\ud83d" not in name)
HASH = IndexId(Ref(MAIN), Scope("")).prefix[-9:-1]
DIGEST = "sha256:" + "0" * 64
ALMOST_OURS = [
    f"buildkit-blob-1-{DIGEST}\n",
    f"buildkit-blob-1-{DIGEST}-sig-sig",
    f"buildkit-blob-1-{DIGEST[:-1]}",
    f"buildkit-blob-1-{DIGEST}/../../other",
    f"buildkit-blob-1-{DIGEST.upper()}",
    f"../buildkit-blob-1-{DIGEST}",
    f" buildkit-blob-1-{DIGEST}",
    f"index-a-1-{HASH}#0",
    f"index-a-1-{HASH}#01",
    f"index-a-1-{HASH}#1\n",
    f"index-a-1-{HASH}#9999999999999999999",
    f"index-a-1-{HASH}#1;DELETE",
    "index-a-1-00000000#1",
    f"INDEX-a-1-{HASH}#1",
    "../../../repos/example/app/actions/caches/1",
    "..%2f..%2fcaches%2f1",
    "%00",
]

HIDDEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
"""What moves cursors, ends lines, turns text round, or is not seen at all."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _command(folder: Path, environment: dict[str, str], *arguments: str) -> Outcome:
    return run_here(folder, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environment}, *arguments)


def _process(folder: Path, environment: dict[str, str], *arguments: str) -> Outcome:
    return processes.run(
        folder, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environment}, *arguments
    )


def _fill(world: World) -> list[Entry]:
    """Store hostile entries of all kinds, long ago; give those that nobody may delete."""
    world.passes(days=-30)
    foreign = [world.put(name, b"x") for name in (*NAMES, *ALMOST_OURS)]
    for name in NAMES:
        ref = f"refs/heads/{name}"
        foreign.append(world.put(f"buildkit-blob-1-{blob_of(name)}", b"x", ref=ref))
        if len(name) < 400:
            scope = Scope(name)
            for number, steps in enumerate((("base", "api"), ("base", name)), 1):
                key = str(IndexId(Ref(MAIN), scope).key(number))
                world.put(key, encode(built(*steps, at=world.now)))
            hidden = str(IndexId(Ref(ref), scope).key(1))
            foreign.append(world.put(hidden, b'{"layers":[{"blob":"\x1b[2J"}]}', ref=ref))
            bad = IndexId(Ref(MAIN), Scope(f"bad {name}")).key(1)
            named = json.dumps({"records": [{"digest": name, "layers": [{"layer": name}]}]})
            world.put(str(bad), named.encode())
    for step in ("base", "api", *NAMES):
        world.put(f"buildkit-blob-1-{blob_of(step)}", size=10)
    world.passes(days=30)
    return foreign


def _obeys_nobody(text: str) -> None:
    for line in text.split("\n"):
        raw = {c for c in line if unicodedata.category(c) in HIDDEN}
        assert raw == set(), ascii(line)
        assert not re.match(r"\s*(::|##\[)", line), line


@pytest.mark.parametrize("options", [[], ["--verbose", "--json"], ["--dry-run", "--verbose"]])
def test_a_run_over_hostile_names_ends_well_and_none_is_obeyed_or_deleted_then_or_later(
    world: World, tmp_path: Path, options: list[str]
) -> None:
    foreign = _fill(world)
    environment = world.running.environment(MAIN)
    world.passes(days=1)

    run = _command if options else _process
    done = run(tmp_path, environment, "gc", "--grace", "0s", *options)

    assert done.status == 0, done.err
    assert "Traceback" not in done.err
    _obeys_nobody(done.err)
    left = {entry.id: entry for entry in world.entries()}
    assert [entry.key for entry in foreign if left.get(entry.id) != entry] == []
    if "--json" in options:
        subjects = {action["subject"] for action in json.loads(done.out)["actions"]}
        assert any("\x1b[2J" in subject for subject in subjects)
    _obeys_nobody(done.out)
    if "--dry-run" not in options:
        for name in (name for name in NAMES if len(name) < 400):
            assert world.generations(name)[-1] == 3

    for later in (["report"], ["runs"], ["report", "--json"]):
        shown = _command(tmp_path, {}, *later)
        assert shown.status == 0
        _obeys_nobody(shown.shown)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize(
    "variable",
    [
        "GITHUB_REPOSITORY",
        "GITHUB_TOKEN",
        "GITHUB_API_URL",
        "ACTIONS_RESULTS_URL",
        "ACTIONS_RUNTIME_TOKEN",
        "MAINTAINER_GRACE",
        "MAINTAINER_DATABASE",
        "MAINTAINER_CONFIG",
    ],
)
@pytest.mark.soak
def test_a_hostile_variable_is_one_line_that_nobody_obeys(
    world: World, tmp_path: Path, variable: str, name: str
) -> None:
    environment = world.running.environment(MAIN) | {variable: name}

    done = _command(tmp_path, environment, "gc", "--quiet")

    assert done.status in (0, 1, 2)
    _obeys_nobody(done.shown)


@pytest.mark.parametrize(
    "arguments",
    [
        ["gc", "--grace", "\x1b[2J\n::error::x"],
        ["gc", "--scope", "\x1b[2J\n::error::x"],
        ["gc", "--max-requests", "\x1b[2J\n::error::x"],
        ["gc", "--deadline", "\x1b[2J\n::error::x"],
        ["gc", "--config", "\x1b[2J\n::error::x"],
        ["gc", "--database", "\x1b[2J\n::error::x"],
        ["gc", "--\x1b[2J\n::error::x"],
        ["\x1b[2J\n::error::x"],
        ["report", "--run", "\x1b[2J\n::error::x"],
        ["report", "--database", "sqlite:///\x1b[2J\n::error::x"],
        ["emulator", "--listen", "\x1b[2J\n::error::x"],
        ["emulator", "--faults", "\x1b[2J\n::error::x"],
    ],
    ids=lambda arguments: " ".join(arguments)[:20],
)
def test_a_hostile_argument_is_told_escaped(
    world: World, tmp_path: Path, arguments: list[str]
) -> None:
    done = _command(tmp_path, world.running.environment(MAIN), *arguments)

    assert "Traceback" not in done.err
    _obeys_nobody(done.shown)


def test_hostile_names_grow_no_log_without_bound(world: World, tmp_path: Path) -> None:
    for number in range(50):
        world.put("x" * 500 + str(number), b"")
    world.build("base", "api", scope="s" * 400)
    world.passes(days=1)

    done = _command(tmp_path, world.running.environment(MAIN), "gc", "--verbose", "--grace", "0s")

    assert done.status == 0
    assert max(map(len, done.err.splitlines())) < 2_100


FEATURE = "refs/heads/feature"


def _shadow(world: World, entry: Entry) -> Callable[[], Entry]:
    """Return what a build on a branch may do: the key of an index of main, in its own ref."""
    content = encode(built("base", at=world.now))
    return lambda: world.cache.put(entry.key, content.ljust(entry.size), ref=FEATURE)


def test_an_index_whose_key_another_readable_ref_has_is_not_read_there(world: World) -> None:
    index = world.build("base", "api")
    world.build("base", ref=FEATURE)
    world.running.call(lambda _: _shadow(world, index)())
    world.passes(days=3)

    report = world.gc(ref=FEATURE, readable=[MAIN])

    assert report.status == "done"
    assert world.blobs(MAIN) == {blob_of("base"), blob_of("api")}
    assert any(f"{FEATURE} has an entry with the same key" in a.sentence for a in report.actions)
    # What a run on the branch has seen is no matter to main, with the same database either.
    world.passes(days=1)
    world.build("base", "web")
    world.gc()
    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "api", "web")}


def test_version_1_says_in_which_ref_an_index_is_that_was_put_in_front_meanwhile(
    world: World,
) -> None:
    index = world.build("base", "api")
    world.passes(days=3)
    once = iter([_shadow(world, index)])

    def build(request: Request) -> None:
        if request.kind == "list" and (shadow := next(once, None)):
            shadow()

    world.running.observe(after=build)

    report = world.gc(ref=FEATURE, readable=[MAIN], service="v1", grace=timedelta(0))

    assert world.blobs() == {blob_of("base"), blob_of("api")}
    assert any("could not be read this time" in action.sentence for action in report.actions)


def test_without_a_list_what_a_branch_puts_in_front_of_mains_index_is_not_believed_on_main(
    world: World,
) -> None:
    index = world.build("base", "api")
    world.running.call(lambda _: _shadow(world, index)())
    world.gc(ref=FEATURE, readable=[MAIN], rest=False)
    world.build("base", "web")
    world.gc(ref=FEATURE, readable=[MAIN], rest=False)

    world.gc(rest=False)

    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "api", "web")}
