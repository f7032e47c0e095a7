"""A run over the recorded history of 226 builds, over HTTP."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexKey,
    Scope,
    decode,
    merge,
    parse_key,
    prune,
)
from maintainer.demo.history import load_history, seed
from maintainer.emulator.state import Entry
from maintainer.report import Report
from tests.integration.world import MAIN, START, World, a_world, is_ours, read_newest
from tests.worlds import meaning

SCOPES = ("api", "buildkit", "tools", "web", "worker")
LOOK_AND_LOAD = 2
PER_WRITTEN_INDEX = 8


def _seed(world: World, entries: int | None = None) -> None:
    seed(world.cache, load_history()[:entries], ends_at=START, lasted=timedelta(days=5))
    for number in range(3):
        world.put(f"setup-node-Linux-{number}", b"other tool", ref=MAIN)
    world.put("buildkit-blob-1-sha256:short", b"near miss", ref=MAIN)


@dataclass(frozen=True)
class Story:
    """Some blobs are evicted, then two runs with no grace period a minute apart."""

    before: list[Entry]
    after: list[Entry]
    at_the_end: list[Entry]
    first: Report
    second: Report
    requests: Counter[str]
    requests_of_second: Counter[str]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((0.3, None), id="30% evicted"),
        pytest.param((1, 300), id="all of 300 entries evicted"),
        *(
            pytest.param((share, None), id=f"{share:.0%} evicted", marks=pytest.mark.soak)
            for share in (0, 0.05, 1)
        ),
    ],
)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    share, entries = request.param
    with a_world(tmp_path_factory.mktemp("story")) as world:
        _seed(world, entries)
        blobs = [entry for entry in world.entries() if isinstance(parse_key(entry.key), BlobKey)]
        world.evict_entries(Random(7).sample(blobs, int(len(blobs) * share)))
        before = world.entries()
        first = world.gc(grace=timedelta(0))
        requests = Counter(world.requests)
        after = world.entries()
        world.passes(minutes=1)
        second = world.gc(grace=timedelta(0))
        return Story(
            before, after, world.entries(), first, second, requests, Counter(world.requests)
        )


def _blobs(entries: list[Entry]) -> set[Digest]:
    keys = (parse_key(entry.key) for entry in entries if entry.ref == MAIN)
    return {key.digest for key in keys if isinstance(key, BlobKey)}


def _indexes(entries: list[Entry]) -> dict[Scope, list[CacheConfig]]:
    indexes: dict[Scope, list[CacheConfig]] = {}
    for entry in entries:
        key = parse_key(entry.key)
        if entry.ref == MAIN and isinstance(key, IndexKey):
            indexes.setdefault(key.scope, []).append(decode(entry.content or b""))
    return indexes


def test_every_result_that_the_surviving_blobs_allow_is_reachable_again(story: Story) -> None:
    assert story.first.status == "done", story.first.problems
    live = _blobs(story.before)
    for scope, configs in _indexes(story.before).items():
        allowed = prune(merge(configs), live)
        assert meaning(read_newest(story.after, scope)) == meaning(allowed)


def test_no_index_names_a_blob_that_is_gone(story: Story) -> None:
    for configs in _indexes(story.after).values():
        for config in configs:
            assert config.blobs <= _blobs(story.after)


def test_nothing_of_other_tools_and_nothing_in_unreadable_refs_is_touched(story: Story) -> None:
    others = [entry for entry in story.before if entry.ref != MAIN or not is_ours(entry)]

    assert [entry for entry in story.after if entry in others] == others


def test_what_is_left_is_one_index_for_each_scope_and_the_blobs_that_it_needs(
    story: Story,
) -> None:
    left = _indexes(story.after)

    assert sorted(left) == sorted(SCOPES)
    assert all(len(configs) == 1 for configs in left.values())
    assert _blobs(story.after) == {blob for one in left.values() for blob in one[0].blobs}


def test_a_run_asks_for_no_more_than_it_must(story: Story) -> None:
    listed = {entry.key for entry in story.before}
    generations = [config for configs in _indexes(story.before).values() for config in configs]
    named = {blob for config in generations for blob in config.blobs}
    in_doubt = {blob for blob in named if str(BlobKey(blob)) not in listed}

    asked = dict(story.first.requests.counts)

    assert sum(asked.values()) == story.requests.total()
    assert asked.pop("list") == math.ceil(len(story.before) / 100)
    assert asked.pop("delete") == len(story.first.deleted)
    # What builds have done is asked before blobs go, of indexes and blobs, and once afterwards.
    assert asked.pop("recheck", 0) in (0, 3)
    rest = sum(asked.values()) - LOOK_AND_LOAD * len(generations) - len(in_doubt)
    # And whether the list has shown the newest generation of each index.
    rest -= len(_indexes(story.before)) if story.first.deleted else 0
    assert rest <= PER_WRITTEN_INDEX * story.first.indexes_written


def test_a_second_run_finds_nothing_to_do_and_only_lists(story: Story) -> None:
    assert {action.kind for action in story.second.actions} == {"keep"}
    assert story.requests_of_second == {"list": math.ceil(len(story.after) / 100)}
    assert story.at_the_end == story.after


@pytest.fixture(params=[300, pytest.param(None, marks=pytest.mark.soak)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        _seed(world, request.param)
        yield world


def test_with_the_default_grace_what_builders_may_be_reading_survives_for_a_day(
    world: World,
) -> None:
    read_now = {scope: world.newest(scope).blobs for scope in SCOPES}
    world.gc()
    for blobs in read_now.values():
        assert blobs <= world.blobs(MAIN)

    world.passes(hours=25)
    world.gc()

    assert len(world.generations("buildkit")) == 1
