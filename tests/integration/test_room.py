"""A run that makes room: what leaves a full cache, when it is deleted, and when it comes back."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypedDict

import anyio
import pytest

from maintainer.cacheconfig import encode
from maintainer.errors import StoreError
from maintainer.graph.explain import explain
from maintainer.model.reason import (
    DropMissing,
    LeftForRoom,
    ProtectedExceedsLimit,
    QuotaUnknown,
)
from maintainer.report import Report
from maintainer.report.html import render_html
from maintainer.report.markdown import render_markdown
from maintainer.report.page.changes import room_table
from maintainer.report.why import render_why
from maintainer.stores.base import Change, Refused, SwapResult
from tests.integration.invariants import import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of, built
from tests.stores.memory import MemoryStore, Vault
from tests.stores.place import How
from tests.stores.runs import run_on

DAY = timedelta(days=1)


class Free(TypedDict):
    """How much is free."""

    quota: str
    room: Mapping[str, str]


FREE: Free = {"quota": "100B", "room": {"keep_free": "50B"}}
"""Each blob takes 10 bytes, so five may be stored."""


@dataclass
class Cache:
    """A cache in memory, a clock, and runs."""

    memory: Memory
    vault: Vault = field(default_factory=Vault)
    now: datetime = START

    def build(self, image: str, *steps: str, at: datetime | None = None) -> None:
        """Export an image."""
        for step in steps:
            self.vault.blobs.setdefault(blob_of(step), self.now)
        self.vault.write(image, encode(built(*steps, at=at or self.now)), self.now)

    def passes(self, duration: timedelta) -> None:
        """Let time pass."""
        self.now += duration

    def run(
        self,
        *,
        quota: str = "10GB",
        room: Mapping[str, str] = {},
        merged_tag: str = "",
        dry_run: bool = False,
        no_sweep: bool = False,
    ) -> Report:
        """Do a run; without a quota if that is empty."""
        self.now += timedelta(seconds=1)
        how = How(DAY, dry_run=dry_run, no_sweep=no_sweep)
        store = MemoryStore(self.vault)
        settings = {"merged_tag": merged_tag, "room": room} | ({"quota": quota} if quota else {})
        return anyio.run(partial(run_on, store, self.memory, how, self.now, **settings))

    def evict(self, step: str) -> None:
        """Lose a blob."""
        del self.vault.blobs[blob_of(step)]

    def has(self, *steps: str) -> bool:
        """Whether the blobs of all these steps are stored."""
        return all(blob_of(step) in self.vault.blobs for step in steps)

    def usable(self, image: str) -> set[str]:
        """Return the blobs that builders of an image find."""
        read = import_index(self.vault.indexes[image][1])
        return {b for result in read.results if result <= set(self.vault.blobs) for b in result}

    def offers(self, image: str, *steps: str) -> bool:
        """Whether builders of an image find the layers of all these steps."""
        return {blob_of(step) for step in steps} <= self.usable(image)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    (memory,) = Memory.make(tmp_path, 1)
    yield Cache(memory)
    memory.database.close()


OLD = ("base", "old-1", "old-2", "old-3")
NEW = ("base", "new-1", "new-2", "new-3")
STAYING = ("base", "old-1", "new-1", "new-2", "new-3")


def _fill(cache: Cache) -> None:
    """Build two images, one of which nobody builds any more; seven blobs are stored then."""
    cache.build("old", *OLD)
    cache.run()
    cache.passes(10 * DAY)
    cache.build("new", *NEW)


def _left(report: Report) -> dict[str, int]:
    """Return how many results leave each index."""
    assert report.room
    left: dict[str, int] = {}
    for one in report.room.departures:
        (index,) = one.indexes
        left[index] = left.get(index, 0) + one.results
    return left


@pytest.mark.each_database
def test_what_leaves_is_dropped_from_the_index_first_and_deleted_a_grace_period_later(
    cache: Cache,
) -> None:
    _fill(cache)

    first = cache.run(**FREE)

    assert _left(first) == {"old": 2}
    assert cache.offers("new", *NEW)
    assert cache.usable("old") == {blob_of(step) for step in OLD[:2]}
    assert cache.has(*OLD, *NEW)

    cache.passes(DAY)
    second = cache.run(**FREE)

    assert _left(second) == {}
    assert set(cache.vault.blobs) == {blob_of(step) for step in STAYING}
    assert cache.usable("old") == {blob_of(step) for step in OLD[:2]}
    first_of_all, then = (
        LeftForRoom(
            since=START + 10 * DAY + timedelta(seconds=2),
            needed_at=START,
            size=size,
            place=place,
            freed=10,
        )
        for place, size in ((1, 40), (2, 30))
    )
    reasons = {one.subject: one.reason for one in second.deleted}
    assert reasons == {blob_of("old-3"): first_of_all, blob_of("old-2"): then}


def test_every_form_of_the_report_says_how_much_left_and_what(cache: Cache) -> None:
    _fill(cache)

    dry, done = cache.run(dry_run=True, **FREE), cache.run(**FREE)

    for report, left, title in (
        (dry, "2 results would leave the indexes", "Would leave to make room"),
        (done, "2 results left the indexes", "Left to make room"),
    ):
        rows = room_table(report, 10).rows
        assert [row[4].text for row in rows] == ["old", "old"]
        for text in (render_markdown(report), render_html(report)):
            assert left in text
            assert title in text
    assert done.verdict
    assert done.verdict.level == "attention"
    assert done.verdict.message.startswith("2 results left the indexes, so that ")


def test_the_index_says_why_it_is_written(cache: Cache) -> None:
    _fill(cache)

    report = cache.run(**FREE)

    (written,) = [one for one in report.actions if one.kind == "write" and one.subject == "old"]
    assert written.reason == DropMissing(leaving=2)
    assert written.sentence == "drop the results of 2 blobs to make room"


def test_nothing_leaves_without_the_setting(cache: Cache) -> None:
    _fill(cache)
    cache.run(quota="60B")
    cache.passes(2 * DAY)

    report = cache.run(quota="60B")

    assert report.room is None
    assert cache.has(*OLD, *NEW)
    assert cache.offers("old", *OLD)


def test_nothing_leaves_while_enough_is_free(cache: Cache) -> None:
    _fill(cache)

    report = cache.run(quota="100B", room={"keep_free": "30B"})

    assert report.room
    assert (report.room.stored, report.room.limit, report.room.results) == (70, 70, 0)
    assert cache.offers("old", *OLD)


def test_while_the_grace_period_runs_nothing_more_leaves_and_nothing_comes_back(
    cache: Cache,
) -> None:
    _fill(cache)
    cache.run(**FREE)
    written = dict(cache.vault.indexes)

    for _ in range(3):
        cache.passes(timedelta(hours=7))
        report = cache.run(**FREE)

        assert _left(report) == {}
        assert cache.vault.indexes == written
        assert cache.has(*OLD, *NEW)


def test_what_a_build_exports_again_is_there_again(cache: Cache) -> None:
    _fill(cache)
    cache.run(**FREE)
    cache.passes(timedelta(hours=7))

    cache.build("old", *OLD)
    report = cache.run(**FREE)

    assert report.room
    assert report.room.results == 0
    assert report.problems == ()
    assert cache.offers("old", *OLD)

    cache.passes(2 * DAY)
    cache.run(**FREE)

    assert cache.has(*OLD)


def test_what_another_image_exports_is_there_again_for_all(cache: Cache) -> None:
    _fill(cache)
    cache.run(**FREE)
    cache.passes(timedelta(hours=7))

    cache.build("other", *OLD[:2])
    cache.run(**FREE)

    assert cache.offers("old", *OLD[:2])
    assert not cache.offers("old", *OLD[:3])


def test_a_dry_run_shows_what_would_leave_and_changes_nothing(cache: Cache) -> None:
    _fill(cache)
    before = dict(cache.vault.indexes)

    report = cache.run(dry_run=True, **FREE)

    assert _left(report) == {"old": 2}
    assert cache.vault.indexes == before

    cache.run()

    assert cache.offers("old", *OLD)


def test_what_leaves_has_its_grace_period_from_then_on_whatever_a_dry_run_has_shown(
    cache: Cache,
) -> None:
    cache.build("api", *OLD)
    cache.run()
    cache.build("api", *NEW)
    cache.passes(10 * DAY)
    cache.run(dry_run=True, **FREE)
    cache.passes(2 * DAY)

    assert cache.run(**FREE).entries_deleted == 0
    cache.passes(DAY)
    assert cache.run(**FREE).entries_deleted > 0


def test_nothing_has_left_before_the_indexes_are_written_without_it(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("503")

    _fill(cache)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "_swap", refuse)
        assert cache.run(**FREE).status == "failed"
    cache.passes(3 * DAY)
    for step in OLD:  # A build has found them.
        cache.vault.blobs[blob_of(step)] = cache.now
    cache.passes(timedelta(hours=1))

    cache.run(**FREE)

    assert cache.offers("old", *OLD)


def test_an_index_that_cannot_be_written_holds_up_only_what_it_offers(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(cache)
    cache.build("broken", "broken-1", "broken-2")
    cache.run()
    cache.evict("broken-1")
    swap = MemoryStore._swap

    def refuse(store: MemoryStore, change: Change, now: datetime) -> SwapResult:
        return Refused("503") if str(change.index) == "broken" else swap(store, change, now)

    monkeypatch.setattr(MemoryStore, "_swap", refuse)
    assert cache.run(**FREE).status == "failed"
    cache.passes(DAY)

    cache.run(**FREE)

    assert not cache.has("old-3")
    assert not cache.offers("old", "old-3")


def test_a_run_that_deletes_nothing_lets_nothing_leave_but_does_not_bring_back_what_has_left(
    cache: Cache,
) -> None:
    _fill(cache)

    report = cache.run(no_sweep=True, **FREE)

    assert report.room is None
    assert cache.offers("old", *OLD)

    cache.run(**FREE)
    cache.run(no_sweep=True, **FREE)

    assert cache.usable("old") == {blob_of(step) for step in OLD[:2]}


@pytest.mark.each_database
def test_without_the_setting_what_has_left_and_still_exists_is_there_again(cache: Cache) -> None:
    _fill(cache)
    cache.run(**FREE)

    cache.run(quota="100B")

    assert cache.offers("old", *OLD)

    report = cache.run(quota="200B", room={"keep_free": "10%"})

    assert report.room
    assert cache.offers("old", *OLD)


def test_what_has_left_and_still_exists_is_there_again_once_all_fits(cache: Cache) -> None:
    """Somebody wrote a quota that was too small, and has a grace period to notice it."""
    _fill(cache)
    cache.run(**FREE)
    cache.passes(timedelta(hours=7))

    dry = cache.run(quota="70B", room={"keep_free": "0B"}, dry_run=True)
    still = cache.usable("old")
    report = cache.run(quota="70B", room={"keep_free": "0B"})
    cache.passes(2 * DAY)
    cache.run(quota="70B", room={"keep_free": "0B"})

    (written,) = [one for one in report.actions if one.kind == "write" and one.subject == "old"]
    assert written.sentence == "add the results of 2 blobs from earlier exports"
    assert still == {blob_of(step) for step in OLD[:2]}
    assert dry.room == report.room
    assert cache.offers("old", *OLD)


def test_the_newest_export_of_a_scope_is_protected_for_a_week(cache: Cache) -> None:
    cache.build("old", *OLD)
    cache.run()
    cache.passes(6 * DAY)
    cache.build("new", *NEW)

    blocked = cache.run(**FREE)

    assert blocked.room
    assert blocked.room.results == 0
    assert [note.reason for note in blocked.notes] == [ProtectedExceedsLimit(50, 70, 0)]
    assert cache.offers("old", *OLD)

    cache.passes(DAY)
    report = cache.run(**FREE)

    assert _left(report) == {"old": 2}
    assert report.notes == ()


def test_if_the_database_was_lost_what_the_newest_index_needs_counts_as_its_newest_export(
    cache: Cache,
) -> None:
    """Nobody knows then what builds have exported, and when."""
    cache.build("old", "base", "old-1")
    cache.run()
    cache.passes(timedelta(hours=1))
    cache.build("old", *OLD)
    cache.passes(timedelta(hours=1))
    cache.run()
    cache.build("old", *OLD[:3], "other")
    cache.run()
    cache.memory.lose()
    cache.passes(6 * DAY)

    kept = cache.run(quota="45B", room={"keep_free": "1B"})
    cache.passes(7 * DAY)
    left = cache.run(quota="45B", room={"keep_free": "1B"})

    assert [note.reason for note in kept.notes] == [ProtectedExceedsLimit(44, 50, 0)]
    assert sum(_left(left).values()) > 0


def test_of_a_scope_that_is_built_only_results_leave_that_its_newest_export_does_not_need(
    cache: Cache,
) -> None:
    cache.build("web", "base", "one", "two", "three")
    cache.run()
    cache.passes(3 * DAY)
    cache.build("web", "base", "other", "more")
    cache.run(quota="50B")
    assert cache.offers("web", "base", "other", "more")

    report = cache.run(quota="50B", room={"keep_free": "1B"})

    assert _left(report) == {"web": 2}
    assert cache.usable("web") == {blob_of(step) for step in ("base", "other", "more", "one")}


def test_what_a_build_used_within_the_grace_period_stays(cache: Cache) -> None:
    cache.build("web", "base", "one", "two", "three")
    cache.run()
    cache.passes(timedelta(hours=23))
    cache.build("web", "base", "other", "more")

    report = cache.run(quota="50B", room={"keep_free": "1B"})

    assert _left(report) == {}
    assert [note.reason for note in report.notes] == [ProtectedExceedsLimit(49, 60, 0)]


def test_if_other_tools_alone_exceed_the_limit_nothing_leaves(cache: Cache) -> None:
    cache.build("old", *OLD)
    cache.run()
    cache.passes(10 * DAY)
    for number in range(7):
        cache.vault.blobs[f"toolchain-{number}"] = cache.now

    report = cache.run(**FREE)

    assert [note.reason for note in report.notes] == [ProtectedExceedsLimit(50, 0, 70)]
    assert cache.offers("old", *OLD)


def test_what_is_unreferenced_is_not_counted_because_it_leaves_anyway(cache: Cache) -> None:
    cache.build("old", *OLD[:3])
    cache.passes(10 * DAY)
    for number in range(5):
        cache.vault.blobs[blob_of(f"unreferenced {number}")] = cache.now

    report = cache.run(**FREE)

    assert report.room
    assert (report.room.stored, report.room.remaining, report.room.results) == (80, 30, 0)


def test_without_a_quota_the_run_says_what_is_missing(cache: Cache) -> None:
    _fill(cache)

    report = cache.run(quota="", room={"keep_free": "15%"})

    assert report.room is None
    assert [note.reason for note in report.notes] == [QuotaUnknown(is_assumed=False)]
    assert cache.offers("old", *OLD)


def test_the_merge_of_all_does_not_bring_back_what_has_left(cache: Cache) -> None:
    _fill(cache)
    cache.run(merged_tag="maintained")
    assert cache.offers("maintained", *OLD, *NEW)

    cache.run(merged_tag="maintained", **FREE)

    assert cache.usable("maintained") == {blob_of(step) for step in STAYING}

    cache.passes(DAY)
    cache.run(merged_tag="maintained", **FREE)

    assert cache.usable("maintained") == {blob_of(step) for step in STAYING}
    assert not cache.has("old-3")


@pytest.mark.parametrize("step", range(1, 5))
def test_a_build_during_the_run_keeps_what_it_exports(cache: Cache, step: int) -> None:
    _fill(cache)
    steps = iter(range(1, 100))

    def happens() -> None:
        if next(steps) == step:
            cache.build("old", *OLD)

    cache.vault.step = happens
    cache.run(**FREE)
    cache.vault.step = lambda: None
    cache.passes(DAY)
    cache.run(**FREE)

    assert cache.offers("old", *OLD)
    assert cache.offers("new", *NEW)


def test_why_says_that_results_have_left_and_when_a_build_last_exported_them(cache: Cache) -> None:
    _fill(cache)
    cache.run(**FREE)

    with cache.memory.database.reading() as connection:
        (left,) = explain(connection, blob_of("old-3"))
        (stays,) = explain(connection, blob_of("new-3"))

    assert left.uses == ()
    assert "Its results have left the cache: no room for it: builds last needed it on " in str(
        render_why([left])
    )
    assert "Needed by 1 live result, last exported 2026-01-11 00:00 UTC:" in str(
        render_why([stays])
    )


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"quota": ""}, "Set `quota` to what the cache may store, such as 10GB."),
        (
            {"quota": "50B"},
            "Raise the quota, lower `keep_free`, or store less beside the build cache.",
        ),
    ],
)
def test_the_verdict_says_what_to_do_if_no_room_can_be_made(
    cache: Cache, settings: dict[str, str], advice: str
) -> None:
    _fill(cache)

    report = cache.run(room={"keep_free": "40%"}, quota=settings["quota"])

    assert report.verdict
    assert report.verdict.advice == advice


def test_a_run_is_idle_only_while_there_is_room(cache: Cache) -> None:
    _fill(cache)
    for _ in range(2):
        cache.run(quota="100B", room={"keep_free": "40B"})
        cache.passes(2 * DAY)
    enough = cache.run(quota="100B", room={"keep_free": "40B"})
    cache.passes(timedelta(hours=1))
    cache.vault.blobs["toolchain"] = cache.now
    cache.vault.blobs["node"] = cache.now

    report = cache.run(quota="100B", room={"keep_free": "40B"})

    assert enough.room
    assert enough.room.results == 0
    assert report.room
    assert report.room.results > 0


def test_what_only_the_merge_of_a_lost_database_contains_leaves_like_all_else(
    cache: Cache, tmp_path: Path
) -> None:
    merged = "maintained"
    cache.build("old", *OLD)
    cache.run(merged_tag=merged)
    del cache.vault.indexes["old"]
    (tmp_path / "another").mkdir()
    (memory,) = Memory.make(tmp_path / "another", 1)
    with closing(memory.database):
        cache = replace(cache, memory=memory)
        cache.passes(10 * DAY)
        cache.build("new", *NEW)
        cache.run(merged_tag=merged)
        assert cache.offers(merged, *OLD, *NEW)

        report = cache.run(merged_tag=merged, **FREE)

        assert _left(report) == {merged: 2}
        assert cache.usable(merged) == {blob_of(step) for step in STAYING}
        cache.passes(DAY)
        cache.run(merged_tag=merged, **FREE)
        assert set(cache.vault.blobs) == {blob_of(step) for step in STAYING}
