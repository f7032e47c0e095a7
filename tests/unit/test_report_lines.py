"""What the lines of a report say: of a run that did little, as of one that did much."""

from datetime import timedelta

import msgspec
import pytest

from maintainer.cacheconfig import NO_REF, Digest, IndexId, Scope
from maintainer.model.outcome import Done, Outcome, Planned
from maintainer.model.reason import DropUnused, LeftForRoom, NoContent
from maintainer.model.room import Branch, CachedResult, Departure, Room, RoomDecision
from maintainer.report.actions import make_action
from maintainer.report.model import (
    ActionReport,
    Changes,
    ContentReport,
    DepartureReport,
    Headroom,
    RequestReport,
    ResultTotals,
    RoomReport,
    Space,
    Trend,
    TrendPoint,
)
from maintainer.report.page import changes, health, scopes, storage, trend
from maintainer.report.reasons import format_reason
from maintainer.report.room import report_room
from tests.reports import AT, DIRECTORY, a_report

DAY = timedelta(days=1)
WRITE = make_action("write", "index-web", "main", DropUnused(), Done(), size=9)


def _delete(outcome: Outcome) -> ActionReport:
    return make_action("delete", "blob-a", "main", NoContent(), outcome, store_id=1, size=90)


def _last(**more: object) -> str:
    return changes.format_changes(a_report(**more))[-1]


@pytest.mark.parametrize("status", ["failed", "done"])
def test_a_run_that_ended_before_it_saw_anything_says_only_that(status: str) -> None:
    report = a_report(status=status, entries=(), readable=(), space=None)

    assert changes.format_changes(report) == [
        "The run ended before it had a plan, so nothing was written or deleted."
    ]
    assert scopes.why_no_scopes(report) == "The run ended before it had read an index."
    assert storage.why_no_space(report) == "The run ended before it knew what is stored."


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({}, "There was nothing to write or delete."),
        ({"dry_run": True}, "A run would have nothing to write or delete."),
        ({"status": "failed"}, "Nothing was written or deleted."),
    ],
)
def test_a_run_without_a_plan_says_why_nothing_happened(more: dict[str, object], line: str) -> None:
    assert _last(actions=(), **more) == line


def test_a_run_says_whether_it_had_anything_to_delete_or_left_it_to_another() -> None:
    written = a_report(actions=(WRITE,), indexes=a_report().indexes[:1])
    later, done = (
        msgspec.structs.replace(written, actions=(WRITE, _delete(one)))
        for one in (Planned(), Done())
    )

    assert [changes.format_changes(one)[-1] for one in (written, later, done)] == [
        "This run wrote 1 index, and had nothing to delete.",
        "This run wrote 1 index, and deferred 1 entry (90 B) to a run that may delete.",
        "This run wrote 1 index and deleted 1 entry (90 B).",
    ]


@pytest.mark.parametrize(
    ("lost", "line"),
    [
        (0, "This run checked 9 blobs: all of them can be downloaded."),
        (1, "This run checked 9 blobs: 1 cannot be downloaded and is treated as gone."),
        (2, "This run checked 9 blobs: 2 cannot be downloaded and are treated as gone."),
    ],
)
def test_checked_contents_are_told(lost: int, line: str) -> None:
    report = a_report(contents=ContentReport(checked=9, without_content=lost))

    assert line in changes.format_changes(report)


@pytest.mark.parametrize(("dry_run", "leave"), [(True, "would leave"), (False, "left")])
def test_what_leaves_for_room_is_told_with_how_much_is_kept_free(dry_run: bool, leave: str) -> None:
    why = LeftForRoom(needed_at=AT, size=900, place=1, freed=900)
    gone = DepartureReport("sha256:a", 3, ("web",), why, "not needed for long")
    room = RoomReport(10_000, 9_000, 9_500, 8_600, (gone,), results=3, freed=900)

    assert _last(room=room, dry_run=dry_run) == (
        f"To keep 1.0 kB of 10.0 kB free, 3 results {leave} the indexes: their blobs take 900 B, "
        "and are deleted after the grace period."
    )


def test_a_tile_says_that_results_are_as_before() -> None:
    tile = health.tiles(a_report(results=ResultTotals(9, 9, 9, size=5_000)))[0]

    assert tile.note == "as before this run"


def test_a_trend_says_nothing_of_results_that_one_of_its_ends_did_not_count() -> None:
    ends = (TrendPoint(2, AT, {"reachable": 4_000}, None), TrendPoint(3, AT + DAY, {}, 9))

    line = trend.format_trend(a_report(trend=Trend(ends, 2)))

    assert line == "Over 2 runs in 1 day: 4.0 kB → 0 B stored."


def _headroom(free: int | None, expected_before: int | None) -> str:
    found = Headroom(500, 3, expected_before, 200)
    report = a_report(trend=Trend(headroom=found))
    quota = None if free is None else report.space.used + free if report.space else 0
    space = msgspec.structs.replace(report.space or Space(0, 0, ()), quota=quota)
    return trend.format_headroom(msgspec.structs.replace(report, space=space))


def test_a_forecast_says_what_became_of_the_last_one_and_whether_there_is_room() -> None:
    forecast = (
        "Until the next run, 500 B are expected: no more arrived in 9 of 10 of the last "
        "3 intervals between two runs."
    )
    assert trend.format_headroom(a_report()) == ""
    assert _headroom(500, None) == _headroom(None, None) == forecast
    assert _headroom(500, 100) == f"{forecast} The last forecast was 100 B, and 200 B arrived."
    assert _headroom(499, None) == f"{forecast} Only 499 B are free, so GitHub may evict."
    assert "Only 0 B are free" in _headroom(-9, None)


def test_a_run_that_asked_nothing_says_so() -> None:
    assert trend.format_requests(a_report()) == "1 request: 1 list; 0 retries"
    assert trend.format_requests(a_report(requests=RequestReport({}, 0))) == "no requests"


def test_a_report_without_evictions_says_why_there_are_none() -> None:
    quiet = Trend((TrendPoint(2, AT, {}, 4),), 1)

    def of(**more: object) -> str:
        return trend.format_evictions(a_report(trend=quiet, **more))

    assert of() == "The database records no evictions."
    assert of(changes=Changes()) == "No eviction history before the first run."
    assert of(store=DIRECTORY) == (
        "Only runs, and jobs or rules of your own, delete anything from a directory."
    )


def test_a_store_that_cannot_list_says_so() -> None:
    assert storage.why_no_space(a_report()) == "This service cannot list what it stores."


@pytest.mark.parametrize(
    ("not_written", "merged", "exported", "left", "held"),
    [
        ((), "", "", 2, 0),
        (("web",), "", "", 1, 1),
        (("web", "api"), "", "", 0, 2),
        ((), "sha256:api", "", 1, 1),
        ((), "", "sha256:api", 1, 0),
    ],
)
def test_only_what_no_index_offers_any_more_counts_as_having_left(
    not_written: tuple[str, ...], merged: str, exported: str, left: int, held: int
) -> None:
    why = LeftForRoom(needed_at=AT, size=900, place=1, freed=30)
    departures = []
    for number, name in enumerate(("web", "api")):
        branch = Branch((number,), AT, (CachedResult(IndexId(NO_REF, Scope(name)), name),))
        layer = Digest(f"sha256:{name}")
        departures.append(Departure(branch, why, layer, frozenset({layer})))
    room = Room(stored=9_500, remaining=8_600, staying=frozenset(), departures=tuple(departures))
    decided = RoomDecision(room, limit=9_000, quota=10_000, stored=9_700)

    stays = {IndexId(NO_REF, Scope(name)) for name in not_written}
    blobs = (frozenset(Digest(one) for one in [some] if one) for some in (merged, exported))
    shown = report_room(decided, stays, *blobs)

    assert (shown.results, shown.held, len(shown.departures)) == (left, held, left)
    assert shown.freed == 30 * left
    said = changes.format_changes(a_report(room=shown))[-1]
    assert ("left the indexes" in said) == (left > 0)
    assert ("were not written" in said or "was not written" in said) == (held > 0)


def test_of_a_branch_in_two_indexes_only_what_left_one_of_them_has_left() -> None:
    why = LeftForRoom(needed_at=AT, size=900, place=1, freed=30)
    results = tuple(CachedResult(IndexId(NO_REF, Scope(name)), name) for name in ("web", "api"))
    one = Departure(Branch((0,), AT, results), why, Digest("sha256:a"))
    room = Room(stored=9_500, remaining=8_600, staying=frozenset(), departures=(one,))
    decided = RoomDecision(room, limit=9_000, quota=10_000, stored=9_700)

    stays = {IndexId(NO_REF, Scope("web"))}
    shown = report_room(decided, stays)

    assert (shown.results, shown.held, shown.departures[0].indexes) == (1, 1, ("api",))


def test_the_first_departures_are_listed_and_the_others_counted() -> None:
    layer = Digest("sha256:a")
    results = tuple(CachedResult(IndexId(NO_REF, Scope(name)), name) for name in ("web", "api"))
    why = LeftForRoom(needed_at=AT, size=900, place=1, freed=30)
    one = Departure(Branch((0,), AT, results), why, layer, frozenset({layer}))
    room = Room(stored=9_500, remaining=8_600, staying=frozenset(), departures=(one,) * 21)

    shown = report_room(RoomDecision(room, limit=9_000, quota=10_000, stored=9_700))

    assert (shown.quota, shown.limit, shown.stored, shown.remaining) == (
        10_000,
        9_000,
        9_700,
        8_600,
    )
    assert (len(shown.departures), shown.departures_omitted) == (20, 1)
    assert (shown.results, shown.freed) == (42, 630)
    assert shown.departures[0].indexes == ("api", "web")
    assert (shown.departures[0].digest, shown.departures[0].results) == (layer, 2)
    assert shown.departures[0].sentence == format_reason(why)
