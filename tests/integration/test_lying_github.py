"""GitHub's cache, answering in time, in form, and wrongly: nothing that builds find is lost."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.cacheconfig import BlobKey
from maintainer.cacheconfig.keys import ENTRY_VERSION
from maintainer.emulator import Entry
from maintainer.emulator.server import Service
from maintainer.emulator.state import ActionsCache
from maintainer.report import Report
from tests.integration.lying import (
    Answered,
    Asked,
    Liar,
    a_lying_world,
    answer,
    of_entries,
    of_lists,
    without,
)
from tests.integration.world import MAIN, World, blob_of, built, leads_to

GRACE = timedelta(hours=24)
PULL = "refs/pull/7/merge"
NO_ENTRIES = answer(200, '{"total_count":0,"actions_caches":[]}', content_type="application/json")
MISS = answer(200, '{"ok":false}', content_type="application/json")
REFUSED = answer(401, '{"code":"unauthenticated"}', content_type="application/json")
NO_BACKEND = answer(404, "no healthy upstream", content_type="text/plain")
_Lying = tuple[World, Liar]


@pytest.fixture
def lying(tmp_path: Path) -> Iterator[_Lying]:
    with a_lying_world(tmp_path) as both:
        yield both


def _unused(world: World, step: str = "unused") -> Entry:
    """Store a layer that no index needs."""
    return world.put(str(BlobKey(blob_of(step))), size=10)


def _lose(world: World, entry: Entry) -> None:
    """Lose the content of an entry, which stays in the list."""
    world.running.call(lambda cache: cache.lose(entry.id))


def _runs(world: World, *hours: float, **how: Any) -> list[Report]:
    """Do a run after so many hours each."""
    reports = []
    for some in hours:
        world.passes(hours=some)
        reports.append(world.gc(**({"grace": GRACE} | how)))
    return reports


def _is_whole(world: World, scope: str = "buildkit") -> bool:
    """Whether all that the newest index of a scope needs is stored."""
    return leads_to(world.newest(scope)) <= world.blobs()


def _damage_once(liar: Liar, content: bytes) -> list[Asked]:
    """Let the first download of an index of `buildkit` have another content; return it then."""
    damaged: list[Asked] = []

    def lie(asked: Asked, true: Answered) -> Answered:
        if asked.kind != "download" or not asked.key.startswith("index-b") or damaged:
            return true
        damaged.append(asked)
        return Answered(true.status, true.headers, content)

    liar.lie = lie
    return damaged


def _of_blobs(said: Answered) -> Callable[[Asked], Answered | None]:
    def instead(asked: Asked) -> Answered | None:
        is_blob = asked.kind == "download" and asked.key.startswith("buildkit-blob")
        return said if is_blob else None

    return instead


@pytest.mark.parametrize(
    "wrong", [lambda _: 0, lambda size: size + 1], ids=["no sizes", "sizes of a byte more"]
)
def test_indexes_that_can_be_read_are_not_given_up_because_the_list_has_wrong_sizes(
    lying: _Lying, wrong: Callable[[int], int]
) -> None:
    world, liar = lying
    world.build("base", "api")
    world.build("base", "web", scope="web")
    liar.lie = of_entries(lambda one: one.update(size_in_bytes=wrong(one["size_in_bytes"])))

    _runs(world, 1, 25, 25, merged_scope="maintained")

    assert world.blobs() == {blob_of(step) for step in ("base", "api", "web")}
    assert leads_to(world.newest()) == {blob_of("base"), blob_of("api")}


def test_an_index_is_not_given_up_in_a_ref_that_the_token_cannot_write(lying: _Lying) -> None:
    """There it would stay, and name blobs that are gone."""
    world, liar = lying
    index = world.build("base", "api")
    world.build("base", "pull", ref=PULL)
    liar.instead = lambda asked: (
        NO_BACKEND if asked.kind == "download" and asked.key == index.key else None
    )

    _runs(world, 1, 25, ref=PULL, readable=[MAIN])

    assert _is_whole(world)


@pytest.mark.parametrize("what", ["new indexes", "known indexes"])
def test_a_token_that_has_expired_fails_the_run_and_says_so(lying: _Lying, what: str) -> None:
    world, liar = lying
    world.build("base", "api")
    _runs(world, 1)
    if what == "new indexes":
        world.build("base", "web")
    _unused(world)
    stored = world.blobs()
    liar.instead = lambda asked: REFUSED if asked.kind not in ("list", "delete") else None

    # After three days, what builders read is read again.
    refused = _runs(world, 24 * 4, verify_after="3d")[-1]
    liar.instead = lambda _: None
    after = _runs(world, 1)[-1]

    assert refused.status == "failed"
    (problem,) = refused.problems
    assert "did not accept ACTIONS_RUNTIME_TOKEN (HTTP 401): a runtime token is" in problem
    assert after.status == "done"
    assert refused.entries_deleted == 0
    assert stored - world.blobs() <= {blob_of("unused")}


@pytest.mark.parametrize("what", ["look-up", "download"])
def test_if_no_index_at_all_can_be_read_twice_it_is_an_outage(lying: _Lying, what: str) -> None:
    world, liar = lying
    scopes = ("api", "web", "docs", "test", "more", "else")
    for scope in scopes:
        world.build("base", scope, scope=scope)

    def instead(asked: Asked) -> Answered | None:
        if asked.kind == what and asked.key.endswith("#1"):
            return MISS if what == "look-up" else NO_BACKEND
        return None

    for hours in (1, 24):
        world.passes(hours=hours)
        liar.instead = instead
        world.gc(grace=GRACE)
        liar.instead = lambda _: None  # Between the runs, builds find everything.

    assert world.blobs() == {blob_of(step) for step in ("base", *scopes)}


def test_one_download_of_garbage_is_not_final(lying: _Lying) -> None:
    world, liar = lying
    index = world.build("base", "api")
    world.build("base", "web", scope="web")
    damaged = _damage_once(liar, bytes(index.size))
    _runs(world, 1, 25)

    assert damaged
    assert blob_of("api") in world.blobs()
    assert leads_to(world.newest()) == {blob_of("base"), blob_of("api")}


def test_an_index_that_was_read_wrong_once_is_right_when_it_is_read_again(lying: _Lying) -> None:
    """What it needed seemed unreferenced, and has a grace period of more than `verify_after`."""
    world, liar = lying
    world.build("base", "api")
    other = world.build("base", "web", scope="web").content or b""
    damaged = _damage_once(liar, other)
    _runs(world, 1, 25, 25, grace=timedelta(days=3), verify_after="1d")

    assert damaged
    assert _is_whole(world)
    assert blob_of("api") in leads_to(world.newest())


def test_a_newest_index_that_loses_its_content_is_written_again_from_memory(lying: _Lying) -> None:
    world, _ = lying
    world.build("base", "web", scope="web")
    newest = world.build("base", "api")
    _runs(world, 1, verify_after="3d")
    _lose(world, newest)

    _runs(world, *[24] * 6, verify_after="3d")

    assert max(world.generations()) == 2
    assert leads_to(world.newest()) == {blob_of("base"), blob_of("api")}


def test_older_generations_stay_while_the_newest_has_no_content(lying: _Lying) -> None:
    world, _ = lying
    world.build("base", "api")
    world.build("base", "web")
    _runs(world, 1)
    newest = max(world.entries(), key=lambda one: one.id)
    _lose(world, newest)

    _runs(world, 25, 25)

    assert [one for one in world.entries() if one.key.startswith("index") and not one.lost]


def test_a_second_list_that_is_empty_proves_nothing(lying: _Lying) -> None:
    world, liar = lying
    world.build("base", "api")
    _unused(world)
    _runs(world, 1)
    built_ones: list[Entry] = []

    def instead(asked: Asked) -> Answered | None:
        if asked.is_recheck and not built_ones:
            built_ones.append(world.build("base", "unused"))
        return NO_ENTRIES if asked.is_recheck else None

    liar.instead = instead
    _runs(world, 30)

    assert built_ones
    assert _is_whole(world)


def test_an_empty_list_of_what_was_used_last_proves_nothing(lying: _Lying) -> None:
    world, liar = lying
    world.build("base", "api")
    unused = _unused(world)
    _runs(world, 1)
    used: list[Asked] = []

    def instead(asked: Asked) -> Answered | None:
        if asked.is_recheck and asked.query["key"][0].startswith("buildkit"):
            used.append(asked)
            world.running.call(lambda cache: cache.look_up([MAIN], unused.key, [], ENTRY_VERSION))
            return NO_ENTRIES
        return None

    liar.instead = instead
    _runs(world, 30)

    assert used
    assert blob_of("unused") in world.blobs()


_NOT_FOUND = {
    "Go's": answer(404, "404 page not found\n", content_type="text/plain; charset=utf-8"),
    "Envoy's": NO_BACKEND,
    "JSON": answer(404, '{"error":"no such tenant"}', content_type="application/json"),
    "no container": answer(
        404,
        "<?xml version='1.0'?><Error><Code>ContainerNotFound</Code></Error>",
        content_type="application/xml",
        x_ms_error_code="ContainerNotFound",
    ),
}


@pytest.mark.parametrize("said", _NOT_FOUND.values(), ids=_NOT_FOUND.keys())
def test_a_404_that_says_nothing_of_the_blob_proves_nothing(lying: _Lying, said: Answered) -> None:
    world, liar = lying
    world.build("base", "api", "more", "top")
    _runs(world, 1, verify_after="3d")
    liar.instead = _of_blobs(said)

    (report,) = _runs(world, 96, verify_after="3d")

    assert len(world.blobs()) == 4
    assert len(leads_to(world.newest())) == 4
    assert report.notes


@pytest.mark.parametrize("nothing", ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("what", ["created_at", "last_accessed_at"])
def test_a_service_that_knows_no_times_makes_nothing_old(
    lying: _Lying, nothing: str, what: str
) -> None:
    world, liar = lying
    world.build("base", "api")
    world.passes(minutes=10)
    uploaded = _unused(world)
    world.passes(days=3 if what == "last_accessed_at" else 0)
    world.running.call(lambda cache: cache.look_up([MAIN], uploaded.key, [], ENTRY_VERSION))
    liar.lie = of_entries(lambda one: one.update({what: nothing}))

    _runs(world, 0.02)

    assert blob_of("unused") in world.blobs()


def test_an_index_of_a_pull_request_without_a_time_protects_what_it_needs(lying: _Lying) -> None:
    world, liar = lying
    world.build("base", "api")
    _unused(world, "docs")
    _runs(world, 1)
    world.passes(hours=30)
    world.export(built("docs"), scope="buildkit", ref=PULL)
    nothing = "1970-01-01T00:00:00Z"
    liar.lie = of_entries(
        lambda one: one["ref"] == PULL and one.update(created_at=nothing, last_accessed_at=nothing)
    )

    _runs(world, 0)

    assert blob_of("docs") in world.blobs()


def test_an_index_that_a_look_up_finds_needs_its_blobs_listed_or_not(lying: _Lying) -> None:
    world, liar = lying
    world.build("base", "api")
    _runs(world, 1)
    new = world.build("base", "web")
    liar.lie = without(new.key)

    *_, report = _runs(world, 1, 25)

    assert _is_whole(world)
    assert any(new.key in one.outcome_sentence for one in report.actions)


def test_a_single_list_that_lacks_a_new_index_deletes_nothing_of_it(lying: _Lying) -> None:
    """Runs are 25 hours apart: blobs that no run has seen before are old at once."""
    world, liar = lying
    world.build("base", "api")
    _runs(world, 1)
    world.passes(minutes=10)
    new = world.build("base", "web")
    world.passes(hours=24)
    liar.lie = without(new.key)

    world.gc(grace=GRACE)

    assert _is_whole(world)


def test_an_index_in_doubt_is_not_gone_because_the_next_list_lacks_it(lying: _Lying) -> None:
    world, liar = lying
    world.build("base", "api")
    _runs(world, 1)
    new = world.build("base", "web")
    liar.instead = lambda asked: (
        answer(404, "<Error/>") if asked.kind == "download" and asked.key == new.key else None
    )
    _runs(world, 1)
    liar.instead = lambda _: None
    liar.lie = without(new.key)

    _runs(world, 25)

    assert _is_whole(world)


@pytest.mark.parametrize("service", ["v1", "v2"])
def test_a_cache_that_cannot_be_listed_is_not_called_empty(lying: _Lying, service: Service) -> None:
    world, _ = lying
    world.build("base", "api")
    world.build("base", "web")

    reports = _runs(world, 1, 1, rest=False, service=service)

    assert not any("is empty" in one.verdict.message for one in reports if one.verdict)


@pytest.mark.parametrize("how", ["total", "link"])
def test_a_list_that_claims_many_pages_is_not_asked_for_all_of_them(
    lying: _Lying, how: str
) -> None:
    world, liar = lying
    world.build("base", "api")

    link = {"link": '<http://x/?page=600>; rel="last"'}
    liar.lie = {
        "total": of_lists(lambda page: page | {"total_count": 60_000}),
        "link": lambda asked, true: (
            replace(true, headers=true.headers | link) if asked.kind == "list" else true
        ),
    }[how]
    (report,) = _runs(world, 1)

    assert report.requests.counts["list"] <= 100
    assert _is_whole(world)


def test_sizes_that_no_entry_has_are_no_trouble_of_the_database(lying: _Lying) -> None:
    world, liar = lying
    world.build("base", "api")
    for number in range(3):
        world.put(f"tool-{number}", b"x")
    liar.lie = of_entries(
        lambda one: one["key"].startswith("tool") and one.update(size_in_bytes=2**62)
    )

    (report,) = _runs(world, 1)

    assert report.status == "done", report.problems


def _restored(world: World, last: int) -> None:
    """Let the server forget all after an entry, and count on from it."""

    def restore(cache: ActionsCache) -> None:
        for one in cache.entries():
            if one.id > last:
                cache.evict(one.id)
        cache._last_id = last

    world.running.call(restore)


def test_an_entry_with_a_known_number_and_key_and_another_time_is_another_one(
    lying: _Lying,
) -> None:
    world, _ = lying
    world.build("base", "api")
    _runs(world, 1)
    last = max(one.id for one in world.entries())
    before = world.build("base", "web")
    _runs(world, 1, no_sweep=True)
    _restored(world, last)
    world.passes(hours=1)
    after = world.build("base", "docs")
    assert (before.id, before.key) == (after.id, after.key)

    _runs(world, 1, 25)

    assert blob_of("docs") in leads_to(world.newest())


def test_an_index_with_the_number_of_another_one_is_read(lying: _Lying) -> None:
    world, _ = lying
    _unused(world, "docs")
    world.build("base", "api")
    _runs(world, 1)
    world.passes(hours=30)
    (index,) = [one for one in world.entries() if one.key.startswith("index")]
    _restored(world, index.id - 1)
    assert world.build("base", "docs", scope="docs").id == index.id

    _runs(world, 0)

    assert _is_whole(world, "docs")


def test_where_nothing_can_be_deleted_any_404_drops_what_builds_fail_with(lying: _Lying) -> None:
    """Caches of one's own (act's, falcondev's) answer in their own words."""
    world, liar = lying
    world.build("base", "api")
    liar.instead = _of_blobs(_NOT_FOUND["Go's"])

    _runs(world, 1, rest=False, verify_after="3d")

    assert not leads_to(world.newest())
    assert len(world.blobs()) == 2


def test_the_newest_indexes_are_read_again_once_in_each_period(lying: _Lying) -> None:
    """A run that has nothing to do in between reads nothing, and none is forgotten."""
    world, _ = lying
    for scope in ("api", "web", "docs"):
        world.build("base", scope, scope=scope)
    _runs(world, 1, verify_after="3d")

    downloads = []
    for _ in range(6 * 24):
        (report,) = _runs(world, 1, verify_after="3d")
        downloads.append(report.requests.counts.get("download", 0))

    # Three indexes, and four blobs.
    assert sum(downloads) <= 2 * (3 + 4)
    assert max(downloads) >= 3


def test_many_indexes_do_not_keep_a_run_from_deleting(lying: _Lying) -> None:
    """Neither look-ups nor what they take of a budget stand in the way."""
    world, liar = lying
    for number in range(40):
        world.build("base", scope=f"scope-{number}")
    _unused(world)
    _runs(world, 1)
    liar.lie = lambda asked, true: (
        Answered(true.status, true.headers | {"x-ratelimit-remaining": "20"}, true.body)
        if asked.kind == "list"
        else true
    )

    _runs(world, 30)

    assert blob_of("unused") not in world.blobs()


def test_one_lost_index_of_several_does_not_pass_for_an_outage(lying: _Lying) -> None:
    """The newest entries are those that cannot be read; older ones can."""
    world, _ = lying
    for scope in ("a", "b", "c"):
        world.build("base", scope, scope=scope)
    _runs(world, 1)
    lost = [world.build("base", "more", scope=scope) for scope in ("a", "b")]
    for one in lost:
        _lose(world, one)
    _unused(world)

    _runs(world, 1, 25, 25)

    assert leads_to(world.newest("a")) == {blob_of("base"), blob_of("a")}
    assert blob_of("unused") not in world.blobs()


@pytest.mark.parametrize("service", ["v2", "v1"])
def test_after_many_uploads_that_failed_an_index_is_written_again(
    lying: _Lying, service: Service
) -> None:
    world, liar = lying
    how: dict[str, Any] = {"merged_scope": "maintained", "service": service}
    world.build("base", "api")
    _runs(world, 1, **how)
    world.build("base", "web", scope="web")
    busy = answer(503, "<Error><Code>ServerBusy</Code></Error>")
    liar.instead = lambda asked: busy if asked.kind == "upload" else None
    _runs(world, *[0.1] * 12, no_sweep=True, **how)
    liar.instead = lambda _: None

    report = _runs(world, 1, **how)[-1]

    assert report.status == "done"
    assert leads_to(world.newest("maintained")) == {
        blob_of(step) for step in ("base", "api", "web")
    }


@pytest.mark.parametrize("encoding", ["", "aws-chunked", "utf-8"])
def test_an_encoding_that_encodes_nothing_is_none(lying: _Lying, encoding: str) -> None:
    world, liar = lying
    world.build("base", "api")
    _unused(world)
    said = {"content-encoding": encoding}
    liar.lie = lambda asked, true: (
        replace(true, headers=true.headers | said) if asked.kind == "download" else true
    )

    reports = _runs(world, 1, 25, 25)

    assert {one.status for one in reports} == {"done"}
    assert blob_of("unused") not in world.blobs()


@pytest.mark.parametrize("kind", ["download", "list"])
def test_a_redirect_to_a_host_that_cannot_be_is_an_error_in_one_line(
    lying: _Lying, kind: str
) -> None:
    world, liar = lying
    world.build("base", "api")
    nowhere = answer(302, "", location="https://xn--a..b/blob")
    liar.instead = lambda asked: nowhere if asked.kind == kind else None

    (report,) = _runs(world, 1)

    assert report.status == "failed"
    assert len(report.problems[0].splitlines()) == 1


def test_another_spelling_of_the_repository_is_the_same_cache(lying: _Lying) -> None:
    world, _ = lying
    world.build("base", "api")
    _runs(world, 1)

    environment = world.running.environment(MAIN, repository="Example/APP")
    report = world.gc_in(environment, grace=GRACE)

    assert report.target == "github:example/app"
    assert report.changes.previous_run == 1
