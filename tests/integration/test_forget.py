"""`maintainer forget`: a scope that is no longer built leaves, and its own blobs after it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from maintainer.cacheconfig import BlobKey, decode
from maintainer.cli.app import app
from maintainer.errors import DatabaseError, MaintainerError
from maintainer.graph.database import Database
from maintainer.graph.forget import ForgottenIndex, forget
from maintainer.model.reason import Forgotten
from tests.empty_database import url_of
from tests.integration.simulated_runs import Memory
from tests.integration.test_room import Cache
from tests.integration.world import MAIN, World, a_world, blob_of, built
from tests.stores.memory import Vault


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _forget(world: World, scope: str, *, dry_run: bool = False) -> tuple[ForgottenIndex, ...]:
    database = Database(url_of(world.database))
    try:
        with database.lock(), database.begin() as connection:
            return forget(connection, scope, world.now, dry_run=dry_run)
    finally:
        database.close()


def _newest(world: World, scope: str) -> bytes:
    found = [e for e in world.entries() if e.key.startswith(f"index-{scope}-")]
    return max(found, key=lambda entry: entry.id).content or b""


def _two_scopes(world: World) -> None:
    world.build("base", "old", scope="old")
    world.build("base", "web", scope="web")
    world.gc(merged_scope="maintained")
    world.passes(days=2)


def test_the_next_run_drops_the_scope_and_its_own_blobs_follow_after_the_grace_period(
    world: World,
) -> None:
    _two_scopes(world)

    (found,) = _forget(world, "old")
    first = world.gc(merged_scope="maintained")

    assert (found.scope, found.ref, found.results, found.blobs) == ("old", MAIN, 2, 1)
    (write,) = [one for one in first.actions if one.kind == "write" and "old" in one.subject]
    assert write.reason == Forgotten()
    assert first.results.dropped == 0, "its owner wants that"
    assert first.verdict
    assert first.verdict.level == "good"
    assert decode(_newest(world, "old")).result_count == 0
    assert blob_of("old") not in decode(_newest(world, "maintained")).blobs
    assert blob_of("old") in world.blobs(MAIN)

    world.passes(days=2)
    world.gc(merged_scope="maintained")
    second = world.gc(merged_scope="maintained")

    assert blob_of("old") not in world.blobs(MAIN)
    assert {blob_of("base"), blob_of("web")} <= set(world.blobs(MAIN))
    assert not [one for one in second.actions if one.kind != "keep"]


def test_a_dry_run_changes_nothing(world: World) -> None:
    _two_scopes(world)

    (found,) = _forget(world, "old", dry_run=True)
    world.gc()

    assert found.blobs == 1
    assert blob_of("old") in decode(_newest(world, "old")).blobs


def test_what_another_scope_only_remembers_of_a_step_that_it_has_built_again_is_not_needed(
    world: World,
) -> None:
    _two_scopes(world)
    world.build("base", "old", scope="web")
    world.gc(merged_scope="maintained")
    world.passes(hours=1)
    again = built("base", "old", at=world.now)
    layers = (again.layers[0], msgspec.structs.replace(again.layers[1], blob=blob_of("again")))
    world.put(str(BlobKey(blob_of("again"))), size=layers[1].size)
    world.export(msgspec.structs.replace(again, layers=layers), scope="web", ref=MAIN)
    world.gc(merged_scope="maintained")

    (found,) = _forget(world, "old")
    for _ in range(3):
        world.gc(merged_scope="maintained")
        world.passes(days=2)

    assert blob_of("old") not in world.blobs(MAIN)
    assert (found.blobs, found.size) == (1, 1_003)


@pytest.mark.each_database
def test_what_a_build_exports_after_that_is_remembered_again(world: World) -> None:
    _two_scopes(world)
    _forget(world, "old")
    world.gc()

    world.build("base", "new", scope="old")
    world.gc()

    assert decode(_newest(world, "old")).blobs == {blob_of("base"), blob_of("new")}


def test_an_export_between_forgetting_and_the_next_run_stays(world: World) -> None:
    _two_scopes(world)
    _forget(world, "old")

    world.build("base", "new", scope="old")
    world.gc()

    assert decode(_newest(world, "old")).blobs == {blob_of("base"), blob_of("new")}


def test_an_idle_run_does_not_overlook_it(world: World) -> None:
    _two_scopes(world)
    world.gc(merged_scope="maintained")
    world.gc(merged_scope="maintained")
    _forget(world, "old")

    report = world.gc(merged_scope="maintained")

    assert report.indexes_written > 0


def test_a_scope_of_which_nothing_is_remembered_is_an_error(world: World) -> None:
    _two_scopes(world)

    for name in ("unknown", "maintained", "\udcff"):
        with pytest.raises(MaintainerError, match="has nothing of the scope"):
            _forget(world, name)

    _forget(world, "old")
    with pytest.raises(MaintainerError, match="has nothing of the scope old"):
        _forget(world, "old")


def test_a_scope_of_several_caches_is_forgotten_in_the_one_that_is_chosen(world: World) -> None:
    """One database may serve many repositories, and most of them use the default scope."""
    _two_scopes(world)
    for repository in ("example/app", "example/other"):
        environment = world.running.environment(MAIN) | {"GITHUB_REPOSITORY": repository}
        world.gc_in(environment)
    call = ["forget", "old", "--database", url_of(world.database)]

    several = CliRunner().invoke(app, call)
    wrong = CliRunner().invoke(app, [*call, "--target", "github:example/none"])
    done = CliRunner().invoke(app, [*call, "--target", "github:example/other"])
    rest = CliRunner().invoke(app, [*call, "--dry-run"])

    assert str(several.exception) == (
        "several caches have the scope old: choose one with --target: github:example/app, "
        "github:example/other"
    )
    assert isinstance(wrong.exception, MaintainerError)
    assert done.output.startswith("github:example/other: old in ")
    assert rest.output.startswith("github:example/app: old in ")


def test_a_scope_that_is_misspelled_is_answered_with_those_that_are_known(world: World) -> None:
    world.build("base", scope="\x1b[31mred\n")
    _two_scopes(world)

    with pytest.raises(MaintainerError) as raised:
        _forget(world, "o*")

    assert str(raised.value) == (
        "the database has nothing of the scope o*; it has: \\x1b[31mred\\n, old, web"
    )


def test_a_tag_of_a_store_with_names_is_written_empty(tmp_path: Path) -> None:
    (memory,) = Memory.make(tmp_path, 1)
    cache = Cache(memory, Vault())
    cache.build("old", "base", "old")
    cache.build("web", "base", "web")
    cache.run()
    cache.passes(timedelta(days=2))

    with memory.database.begin() as connection:
        forget(connection, "old", cache.now, dry_run=False)
    cache.run()

    assert cache.usable("old") == set()
    assert cache.offers("web", "base", "web")

    cache.passes(timedelta(days=2))
    cache.run()

    assert not cache.has("old")

    cache.build("old", "base", "new")
    cache.run()

    assert cache.usable("old") == {blob_of("base"), blob_of("new")}
    memory.database.close()


@pytest.mark.each_database
def test_the_command_says_what_is_dropped(world: World) -> None:
    _two_scopes(world)
    call = ["forget", "old", "--database", url_of(world.database)]

    dry = CliRunner().invoke(app, [*call, "--dry-run"])
    done = CliRunner().invoke(app, call)

    assert dry.exit_code == done.exit_code == 0, dry.output
    first, last = dry.output.splitlines()
    assert ": old in refs/heads/main: 2 remembered results; 1 blob (" in first
    assert last == "Nothing was changed."
    assert done.output.splitlines() == [
        first,
        "The next run drops the results; the blobs follow after the grace period.",
    ]


@pytest.mark.each_database
def test_the_command_waits_for_no_run(world: World) -> None:
    _two_scopes(world)
    database = Database(url_of(world.database))

    with database.lock():
        result = CliRunner().invoke(app, ["forget", "old", "--database", url_of(world.database)])

    database.close()
    assert isinstance(result.exception, DatabaseError)
