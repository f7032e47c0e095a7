"""What once went wrong in a simulated world, each as the shortest story that shows it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import msgspec
import pytest

from maintainer.cacheconfig import IndexId, Ref, Scope, encode, merge
from maintainer.cacheconfig.keys import ENTRY_VERSION
from maintainer.emulator.requests import Request
from maintainer.errors import StoreError
from maintainer.report import Report
from maintainer.settings import GitHubSettings
from maintainer.stores.github.client import open_client
from tests.integration.world import AT_ONCE, MAIN, World, a_world, blob_of, built, leads_to

PULL = "refs/pull/7/merge"
WEB = IndexId(Ref(MAIN), Scope("buildkit"))
ORPHAN = f"buildkit-blob-1-{blob_of('orphan')}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _deletes(report: Report) -> list[str]:
    return [action.outcome_sentence for action in report.actions if action.kind == "delete"]


def test_what_hides_the_newest_generation_is_outdated_although_it_was_created_at_the_same_time(
    world: World,
) -> None:
    first = world.build("base", "api")
    world.build("base", "web")
    world.gc(rest=False)
    # In the same second somebody writes the lower number again, and builds get that.
    world.evict_entries([first])
    world.put(first.key, b"")
    world.passes(seconds=1)

    world.gc(rest=False)

    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "api", "web")}


def test_no_blob_is_swept_that_an_index_of_an_unreadable_ref_may_need_which_came_meanwhile(
    world: World,
) -> None:
    world.build("base", "api")
    world.put(ORPHAN, size=10)
    world.passes(days=2)
    once = iter([True])

    def build(request: Request) -> None:
        # It finds the blob in the default branch, and names it in its own ref.
        if request.kind == "list" and next(once, False):
            world.build("orphan", ref=PULL)

    world.running.observe(after=build)

    report = world.gc()

    assert blob_of("orphan") in world.blobs(MAIN)
    assert "written since the run began" in _deletes(report)[0]


def test_no_blob_is_swept_that_a_build_has_looked_up_meanwhile_and_will_name_later(
    world: World,
) -> None:
    world.build("base", "api")
    world.put(ORPHAN, size=10)
    world.put(f"buildkit-blob-1-{blob_of('other')}", size=10)
    world.passes(days=2)
    once = iter([True])

    def build(request: Request) -> None:
        # It finds the blob, so it does not upload it; its index comes when the run is over.
        if request.kind == "list" and next(once, False):
            world.passes(seconds=1)
            world.cache.look_up([PULL, MAIN], ORPHAN, [], ENTRY_VERSION)

    world.running.observe(after=build)

    report = world.gc()

    assert world.blobs() == {blob_of(step) for step in ("base", "api", "orphan")}
    assert sorted(_deletes(report)) == [
        "done",
        "skipped: somebody has looked it up since the run began",
    ]


def test_when_all_blobs_are_in_use_none_is_swept(world: World) -> None:
    world.build("base", "api")
    world.put(ORPHAN, size=10)
    world.passes(days=2)
    once = iter([True])

    def look_up_everything(request: Request) -> None:
        if request.kind == "list" and next(once, False):
            world.passes(seconds=1)
            for entry in world.cache.entries():
                world.cache.look_up([MAIN], entry.key, [], entry.version)

    world.running.observe(after=look_up_everything)

    report = world.gc(grace=timedelta(hours=1))

    assert "too many entries were used since the run began" in _deletes(report)[0]
    assert blob_of("orphan") in world.blobs()


def test_an_index_that_is_nothing_but_brackets_is_refused_before_it_is_decoded(
    world: World,
) -> None:
    # A record costs some hundred bytes in memory, however short it is: three bytes here.
    content = b'{"records":[' + b",".join([b"{}"] * 1_000_001) + b"]}"
    entry = world.export(content, scope="buildkit", ref=MAIN)

    async def read() -> None:
        settings = GitHubSettings.read(world.running.environment(MAIN))
        async with open_client(settings, AT_ONCE, max_index_size=8 * 1024**2) as store:
            found = await store.look_up(entry.key)
            assert found
            with pytest.raises(StoreError, match=r"#1 holds more than 1,000,000 objects and lists"):
                await store.read(found)

    anyio.run(read)


def test_a_generation_that_is_the_newest_again_is_remembered_with_all_that_it_superseded(
    world: World,
) -> None:
    world.build("base", "api")
    world.gc()
    # Another workflow, without a memory of its own, has written the same once more; it is lost.
    again = world.export(world.newest(), scope="buildkit", ref=MAIN)
    world.gc()
    world.evict_entries([again])
    world.passes(minutes=1)

    for _ in range(3):
        world.passes(minutes=1)
        world.gc()

    assert leads_to(world.newest()) == {blob_of("base"), blob_of("api")}


def test_results_whose_blob_was_gone_and_has_been_uploaded_again_are_usable_again(
    world: World,
) -> None:
    world.build("base", "api", "test")
    world.evict("api")
    world.gc()
    world.passes(minutes=1)
    world.put(f"buildkit-blob-1-{blob_of('api')}", size=10)

    world.gc()

    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "api", "test")}


def test_a_generation_that_only_a_listing_has_shown_is_missed_where_nothing_is_listed(
    world: World,
) -> None:
    index = world.build("base", "api")
    world.gc()
    world.evict_entries([index])
    world.passes(minutes=1)
    environment = world.running.environment(MAIN) | {"GITHUB_TOKEN": ""}

    world.gc_in(environment)

    assert leads_to(world.newest()) == {blob_of("base"), blob_of("api")}


@pytest.mark.parametrize("rest", [True, False])
def test_a_build_that_uploads_a_layer_again_brings_back_all_results_that_stood_on_it(
    world: World, *, rest: bool
) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.evict("base")
    world.gc(rest=rest)
    world.passes(minutes=1)
    world.build("base", "tool")

    world.gc(rest=rest)

    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "api", "web", "tool")}


def test_a_layer_that_was_gone_when_its_index_came_in_between_is_noticed_when_it_is_back(
    world: World,
) -> None:
    world.build("base", "api")
    world.build("base", "web")
    late = built("gone", "tool", at=world.now)
    once = iter([True])

    def build(request: Request) -> None:
        if request.kind == "look-up" and request.key == WEB.prefix and next(once, False):
            world.cache.put(f"buildkit-blob-1-{blob_of('tool')}", ref=MAIN, size=10)
            world.cache.put(str(WEB.key(3)), encode(late), ref=MAIN)

    world.running.observe(before=build)
    world.gc()
    assert world.generations() == [1, 2, 3, 4]
    world.passes(minutes=1)
    world.build("gone", scope="another")

    world.gc()

    assert blob_of("tool") in leads_to(world.newest())


@pytest.mark.parametrize("rest", [True, False])
def test_an_older_result_is_found_again_when_the_layer_of_the_newer_one_is_gone(
    world: World, *, rest: bool
) -> None:
    for step in ("older", "newer"):
        config = built(step, at=world.now)
        (record,) = config.records
        same_key = msgspec.structs.replace(record, digest=f"sha256:{'1' * 64}")
        world.put(f"buildkit-blob-1-{blob_of(step)}", size=10)
        config = msgspec.structs.replace(config, records=(same_key,))
        world.export(merge([config, built("base")]), scope="buildkit", ref=MAIN)
        world.passes(minutes=1)
    world.put(f"buildkit-blob-1-{blob_of('base')}", size=10)
    world.gc(rest=rest)
    assert leads_to(world.newest()) == {blob_of("base"), blob_of("newer")}
    world.passes(minutes=1)
    world.evict("newer")

    world.gc(rest=rest)

    assert leads_to(world.newest()) == {blob_of("base"), blob_of("older")}


def test_the_highest_generation_goes_only_for_a_higher_one_although_builds_get_another(
    world: World,
) -> None:
    for _ in range(3):
        highest = world.build("base", "api")
        world.passes(minutes=1)
    world.gc(grace=timedelta(0))
    assert world.generations() == [3]
    world.put(str(WEB.key(1)), b"")
    world.passes(minutes=1)
    once = iter([True])

    def build(request: Request) -> None:
        # It counts on from 1, which was created last.
        if request.kind == "list" and next(once, False):
            world.put(str(WEB.key(2)), highest.content)

    world.running.observe(after=build)

    world.gc(grace=timedelta(0))

    assert world.generations() == [2, 4]
