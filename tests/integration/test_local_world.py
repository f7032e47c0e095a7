"""A simulated world: builds, accidents, images of others and runs, in any order and at once."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.directories import (
    INDEX,
    MANIFEST,
    LockTakenError,
    World,
    begin_anew,
    content_of,
    import_tag,
)
from tests.integration.invariants import ReadIndex
from tests.integration.watching import Watcher

_STEPS = ["base", "lib", "api", "web", "docs", "test"]
_TAGS = ["api", "web", "docs"]
_GRACES = [timedelta(0), timedelta(hours=1), timedelta(hours=24)]

_build = st.tuples(
    st.just("build"),
    st.sampled_from(_TAGS),
    st.lists(st.sampled_from(_STEPS), min_size=1, max_size=4, unique=True),
    st.sampled_from([MANIFEST, INDEX]),
)
_run = st.tuples(
    st.just("gc"),
    st.sampled_from(_GRACES),
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 40), _build), max_size=2),
)
_event = st.one_of(
    _build,
    _run,
    st.tuples(st.just("evict"), st.sampled_from(_STEPS)),
    st.tuples(st.just("orphan"), st.sampled_from([*_STEPS, "x", "y"])),
    st.tuples(st.just("image"), st.sampled_from(["busybox", "alpine"])),
    st.tuples(st.just("passes"), st.sampled_from([1, 23, 25, 240])),
    st.tuples(st.just("upload"), st.sampled_from(["a", "b"])),
)


@dataclass
class Story:
    """A directory, and what builds have exported to it."""

    world: World
    watcher: Watcher
    exported: dict[str, ReadIndex]
    failed_builds: int = 0

    def tell(self, event: tuple[object, ...]) -> None:
        """Let something happen."""
        name, *how = event
        tell: Callable[..., None] = getattr(self, f"_{name}")
        tell(*how)
        self.watcher.look()

    def _build(self, tag: str, steps: list[str], form: str) -> None:
        try:
            self.world.build(*steps, tag=tag, form=form)
        except LockTakenError:
            self.failed_builds += 1
        else:
            self.exported[tag] = import_tag(self.world.path, tag)

    def _evict(self, step: str) -> None:
        if self.world.steps(step):
            self.world.evict(step)

    def _orphan(self, step: str) -> None:
        self.world.put(step)

    def _image(self, name: str) -> None:
        layer = self.world.upload(f"layer of {name}".encode())
        config = self.world.upload(json.dumps({"of": name}).encode())
        image = json.dumps({"config": {"digest": config}, "layers": [{"digest": layer}]})
        try:
            manifest = self.world.name(name, image.encode())
        except LockTakenError:
            self.failed_builds += 1
        else:
            self.watcher.others |= {layer, config, manifest}

    def _passes(self, hours: int) -> None:
        self.world.passes(hours=hours)

    def _upload(self, name: str) -> None:
        if not any(self.world.path.glob("ingest/*")):
            self.world.begin_upload(name)

    def _gc(
        self,
        grace: timedelta,
        merge_tags: bool,
        dry_run: bool,
        meanwhile: list[tuple[int, tuple[object, ...]]],
    ) -> None:
        waiting = dict(meanwhile)

        def between(step: int) -> None:
            if event := waiting.pop(step, None):
                self.tell(event)

        self.watcher.between = between if waiting else None
        with self.watcher.run(grace):
            report = self.world.gc(
                grace=grace, merge_tags=merge_tags, dry_run=dry_run, accept_loss=True
            )
        self.watcher.between = None
        assert report.status == "done", report.problems
        assert self.watcher.problems == []

    def end(self) -> None:
        """No export is lost, and a run that has nothing to do writes nothing."""
        self._gc(timedelta(hours=24), False, False, [])
        stored = self.world.stored()
        for tag, read in self.exported.items():
            live = {blob for result in read.results if stored >= result for blob in result}
            assert live <= self.world.leads_to(tag), tag
        before = self.world.files()
        self._gc(timedelta(hours=24), False, False, [])
        assert self.world.files() == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return iter(range(10**9))


def _tell(folder: Path, numbers: Iterator[int], events: list[tuple[object, ...]]) -> Story:
    world = begin_anew(folder, next(numbers))
    story = Story(world, Watcher(world), {})
    for event in events:
        story.tell(event)
    story.end()
    return story


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=2_000 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 20,
)
@given(events=st.lists(_event, min_size=2, max_size=12))
def test_whatever_happens_no_promise_is_broken(
    folder: Path, numbers: Iterator[int], events: list[tuple[object, ...]]
) -> None:
    _tell(folder, numbers, events)


def test_an_export_at_any_step_of_a_run_is_neither_hidden_nor_harmed(
    folder: Path, numbers: Iterator[int]
) -> None:
    before: list[tuple[object, ...]] = [
        ("build", "api", ["base", "api", "test"], MANIFEST),
        ("build", "web", ["base", "web"], INDEX),
        ("orphan", "x"),
        ("evict", "test"),
        ("passes", 240),
    ]
    export = ("build", "api", ["base", "docs"], MANIFEST)

    failed, steps = 0, 50
    for step in range(2, steps, 2):
        run = ("gc", _GRACES[0], step % 4 == 2, False, [(step, export)])
        failed += _tell(folder, numbers, [*before, run]).failed_builds

    assert 0 < failed <= 2, "the lock is held for a moment only"


def test_the_watcher_notices_a_deletion_that_breaks_a_promise(
    folder: Path, numbers: Iterator[int]
) -> None:
    world = begin_anew(folder, next(numbers))
    manifest = world.build("base", "api")
    other = world.upload(b"other")
    watcher = Watcher(world, {other})
    world.passes(days=9)
    with watcher.run(timedelta(hours=24)):
        (world.blobs / manifest[7:]).name.encode()
        for content in (content_of("base"), b"other"):
            digest = world.upload(content)
            watcher._check_deleted(digest[7:])
        watcher._check_deleted(manifest[7:])
        watcher._check_renamed("something", "index.json")

    assert [problem[:3] for problem in watcher.problems] == ["I1:", "I4:", "I1:", "I4:", "I4:"]
