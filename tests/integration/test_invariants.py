"""Whoever breaks a promise is caught: watchers of runs are worth nothing if they see nothing."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given

from maintainer.cacheconfig import CacheConfig, encode
from maintainer.emulator import Entry
from tests.integration import watching
from tests.integration.directories import a_directory, content_of
from tests.integration.invariants import RefusedIndexError, Watcher, import_index
from tests.integration.world import MAIN, World, a_world, blob_of
from tests.worlds import any_index

PULL = "refs/pull/7/merge"
HASH = "f921bd05"
GRACE = timedelta(hours=24)


@dataclass
class Vandal:
    """Somebody who deletes and writes what a run must not."""

    world: World
    watcher: Watcher
    http: httpx2.Client

    def begin(self, grace: timedelta = GRACE) -> None:
        self.world.running.call(lambda _: self.watcher.begin(grace=grace, readable=[MAIN]))
        self.http.get("/repos/example/app/actions/caches")

    def delete(self, entry: Entry) -> list[str]:
        self.http.delete(f"/repos/example/app/actions/caches/{entry.id}").raise_for_status()
        return self.told()

    def write(self, key: str, content: bytes) -> list[str]:
        twirp = "/twirp/github.actions.results.api.v1.CacheService"
        runtime = {"Authorization": f"Bearer {self.world.running.environment(MAIN)[TOKEN]}"}
        body: dict[str, Any] = {"key": key, "version": VERSION}
        made = self.http.post(f"{twirp}/CreateCacheEntry", json=body, headers=runtime).json()
        url = made["signed_upload_url"]
        self.http.put(url, content=content, headers={"x-ms-blob-type": "BlockBlob"})
        body["size_bytes"] = len(content)
        self.http.post(f"{twirp}/FinalizeCacheEntryUpload", json=body, headers=runtime)
        return self.told()

    def told(self) -> list[str]:
        """Return which promises were broken."""
        return [problem[:2] for problem in self.watcher.problems]

    def blob(self, step: str) -> Entry:
        return next(e for e in self.world.entries() if e.key.endswith(blob_of(step)))


TOKEN = "ACTIONS_RUNTIME_TOKEN"
VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2"


@pytest.fixture
def vandal(tmp_path: Path) -> Iterator[Vandal]:
    with a_world(tmp_path) as world:
        watcher = Watcher(world.cache)
        world.running.observe(before=watcher.before, after=watcher.after)
        rest = {"Authorization": f"Bearer {world.running.environment(MAIN)['GITHUB_TOKEN']}"}
        with httpx2.Client(base_url=world.running.url, headers=rest) as http:
            yield Vandal(world, watcher, http)


def test_a_deleted_blob_that_the_newest_index_needs_is_noticed(vandal: Vandal) -> None:
    vandal.world.build("base", "api")
    vandal.world.passes(days=9)
    vandal.begin()

    assert vandal.delete(vandal.blob("base")) == ["I1"]


def test_a_blob_of_a_dead_result_may_go(vandal: Vandal) -> None:
    vandal.world.build("base", "api", "test")
    vandal.world.evict("api")
    vandal.world.passes(days=9)
    vandal.begin()

    assert vandal.delete(vandal.blob("test")) == []
    assert vandal.delete(vandal.blob("base")) == ["I1"]


def test_what_was_newest_less_than_a_grace_period_ago_still_needs_its_blobs(vandal: Vandal) -> None:
    former = vandal.world.build("base", "api")
    vandal.world.passes(days=9)
    vandal.world.build("base", "web")
    vandal.world.passes(hours=23)
    vandal.begin()

    assert vandal.delete(vandal.blob("api")) == ["I1"]
    assert vandal.delete(former) == ["I1", "I1"]


def test_what_was_newest_a_grace_period_ago_needs_nothing(vandal: Vandal) -> None:
    former = vandal.world.build("base", "api")
    vandal.world.build("base", "web")
    vandal.world.passes(hours=25)
    vandal.begin()

    assert vandal.delete(vandal.blob("api")) == []
    assert vandal.delete(former) == []


def test_what_a_run_has_superseded_needs_its_blobs_for_a_grace_period(vandal: Vandal) -> None:
    former = vandal.world.build("base", "api")
    vandal.world.passes(days=9)
    vandal.begin()
    vandal.write(former.key.replace("#1", "#2"), b"{}")
    vandal.world.passes(hours=23)
    vandal.begin()
    assert vandal.delete(vandal.blob("api")) == ["I1"]

    vandal.world.passes(hours=2)
    vandal.begin()

    assert vandal.delete(vandal.blob("base")) == ["I1"]


def test_a_young_index_in_an_unreadable_ref_needs_its_blobs(vandal: Vandal) -> None:
    vandal.world.build("base", "api")
    vandal.world.build("base", "web")
    vandal.world.passes(days=9)
    vandal.world.build("base", "api", ref=PULL)
    vandal.begin()

    # It needs what its own ref has too, but builds may find it in either.
    assert vandal.delete(vandal.blob("api")) == ["I1"]


@pytest.mark.parametrize("grace", [timedelta(0), GRACE])
def test_nothing_young_is_deleted(vandal: Vandal, grace: timedelta) -> None:
    vandal.world.build("base", "api")
    orphan = vandal.world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
    vandal.begin(grace)

    assert vandal.delete(orphan) == (["I1"] if grace else [])


def test_the_newest_generation_is_not_deleted(vandal: Vandal) -> None:
    newest = vandal.world.build("base", "api")
    vandal.world.passes(days=9)
    vandal.begin(timedelta(0))

    assert vandal.delete(newest) == ["I1"]


def test_what_the_host_makes_the_newest_is_not_deleted_once_the_run_has_looked(
    vandal: Vandal,
) -> None:
    generations = [vandal.world.build("base", "api") for _ in range(3)]
    vandal.world.passes(days=9)
    vandal.begin()
    vandal.world.evict_entries(generations[2:])

    assert vandal.delete(generations[1]) == []
    vandal.http.get("/repos/example/app/actions/caches")
    assert vandal.delete(generations[0]) == ["I1"]


def test_what_is_of_others_or_in_an_unreadable_ref_is_not_deleted(vandal: Vandal) -> None:
    other = vandal.world.put("setup-node", b"other")
    near = vandal.world.put("buildkit-blob-1-sha256:short", b"near miss")
    pull = vandal.world.put("buildkit-blob-1-" + blob_of("pull"), b"pull", ref=PULL)
    vandal.world.passes(days=9)
    vandal.begin(timedelta(0))

    assert [vandal.delete(entry)[-1:] for entry in (other, near, pull)] == [["I4"]] * 3
    assert len(vandal.watcher.problems) == 3


@pytest.mark.parametrize(
    ("key", "content", "broken"),
    [
        (f"index-x-1-{HASH}#1", b"{}", []),
        (f"index-x-1-{HASH}#1", b"", ["I2"]),
        (f"index-x-1-{HASH}#1", encode(CacheConfig())[:-1], ["I2"]),
        (f"index-x-1-{HASH}-sig#1", b"{}", ["I4"]),
        ("index-x-1-00000000#1", b"{}", ["I4"]),
        ("something", b"{}", ["I4", "I4"]),
    ],
)
def test_what_is_written_is_an_index_that_builds_can_read(
    vandal: Vandal, key: str, content: bytes, broken: list[str]
) -> None:
    vandal.begin()

    assert vandal.write(key, content) == broken


def test_a_written_index_names_no_blob_that_was_gone_before_the_run(vandal: Vandal) -> None:
    first = vandal.world.build("base", "api")
    vandal.world.build("base", "web")
    vandal.begin()
    vandal.world.evict("web")
    vandal.begin()

    assert vandal.write(first.key.replace("#1", "#3"), first.content or b"") == []
    vandal.world.evict("api")
    vandal.begin()
    assert vandal.write(first.key.replace("#1", "#4"), first.content or b"") == ["I2"]


def test_what_the_host_or_a_build_does_is_not_the_runs_doing(vandal: Vandal) -> None:
    newest = vandal.world.build("base", "api")
    vandal.begin()
    vandal.world.evict_entries([newest, vandal.blob("base")])
    vandal.world.build("gone before", "web")
    vandal.http.delete(f"/repos/example/app/actions/caches/{newest.id}")

    assert vandal.told() == []


BROKEN = {
    "no annotations": {"layers": [{"blob": blob_of("x"), "parent": -1}]},
    "a parent out of range": {
        "layers": [{"blob": blob_of("x"), "parent": 1, "annotations": {"diffID": "sha256:1"}}]
    },
    "a layer on itself": {
        "layers": [{"blob": blob_of("x"), "annotations": {"diffID": "sha256:1"}}]
    },
    "an empty input": {"records": [{"digest": "a", "inputs": [[]]}]},
    "a link out of range": {"records": [{"digest": "a", "inputs": [[{"link": 1}]]}]},
    "a loop": {"records": [{"digest": "a", "inputs": [[{"link": 0}]]}]},
    "a layer out of range": {"records": [{"digest": "a", "layers": [{"layer": 0}]}]},
    "no index": [],
}


@pytest.mark.parametrize("index", BROKEN.values(), ids=BROKEN)
def test_an_importer_refuses(index: object) -> None:
    with pytest.raises(RefusedIndexError):
        import_index(json.dumps(index).encode())


@given(any_index())
def test_an_importer_reads_what_is_written(config: CacheConfig) -> None:
    read = import_index(encode(config))

    assert read.blobs == {layer.blob for layer in config.layers}
    assert len(read.results) == sum(len(record.results) for record in config.records)


def test_whoever_breaks_a_promise_in_a_directory_is_caught(tmp_path: Path) -> None:
    world = a_directory(tmp_path)
    world.build("base", "api")
    watcher = watching.Watcher(world, {world.upload(b"other")})
    world.passes(days=9)
    needed, of_others = (Path(world.upload(one)[7:]) for one in (content_of("base"), b"other"))
    (world.blobs / "orphan").touch()
    shutil.copy(world.path / "index.json", world.path / "new.json")
    root = os.open(world.path, os.O_RDONLY)
    blobs = os.open(world.blobs, os.O_RDONLY)

    with watcher.run(GRACE):
        os.remove(needed, dir_fd=blobs)
        os.remove(of_others, dir_fd=blobs)
        os.remove("orphan", dir_fd=blobs)
        os.rename("new.json", "index.json", src_dir_fd=root, dst_dir_fd=root)

    told = [problem[:2] for problem in watcher.problems]
    assert told == ["I1", "I4", "I4", "I4", "I4"], watcher.problems
