"""What counts as an outage, and what the host or we ourselves have done."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from maintainer.cacheconfig import Digest, IndexId, Scope
from maintainer.model.content import Content
from maintainer.model.entry import Access, RememberedEntry, StoreLimits
from maintainer.model.index import ReadGeneration, UnreadGeneration
from maintainer.model.memory import ExpectedEntries, KnownPlace, Memory, Probe
from maintainer.model.reason import Counted, Problem
from maintainer.model.snapshot import Snapshot
from maintainer.model.store import Abilities
from maintainer.policy.loss import Loss, find_loss
from tests.snapshots import MAIN, World, a_snapshot

NOW = datetime(2026, 1, 20, tzinfo=UTC)
PLENTY = 10**9
SIZE = 100


_NOTHING = Snapshot(
    now=NOW,
    access=Access(),
    entries=(),
    generations=(),
    unread=(),
    live_blobs=frozenset(),
    read_by_builders={},
    listing_complete=True,
)


def _remembered(*ages: timedelta) -> list[RememberedEntry]:
    """Return entries that were used so long ago, numbered from 1."""
    return [RememberedEntry(number, SIZE, NOW - age) for number, age in enumerate(ages, 1)]


def _hours(*hours: float) -> list[RememberedEntry]:
    return _remembered(*(timedelta(hours=number) for number in hours))


def _digest(number: int) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(bytes([number])).hexdigest()}")


def _probe(
    *,
    lists: bool = True,
    live: Iterable[int] = (),
    unasked: Iterable[int] = (),
) -> Probe:
    return Probe(
        at=NOW,
        access=Access(),
        abilities=Abilities(lists=lists, numbered=True, evicted_by="GitHub"),
        entries=(),
        listing_complete=True,
        read=(),
        unread=(),
        adopted={},
        found=frozenset(),
        gone=frozenset(),
        live_blobs=frozenset(map(_digest, live)),
        missing_blobs=frozenset(),
        read_by_builders={},
        unasked_blobs=frozenset(map(_digest, unasked)),
    )


def _outage(
    remembered: Iterable[RememberedEntry], present: Iterable[int], quota: int = PLENTY
) -> Loss | None:
    entries, there = list(remembered), set(present)
    new = [number for number in there if number not in {one.store_id for one in entries}]
    gone = [one for one in entries if one.store_id not in there]
    found = ExpectedEntries(
        found=len(entries) - len(gone),
        gone=sorted(gone, key=lambda one: one.last_accessed_at),
        size=sum(one.size for one in entries) + SIZE * len(new),
        arrived=SIZE * len(new),
    )
    return find_loss(Memory(), found, _probe(), _NOTHING, StoreLimits(quota=quota))


@pytest.mark.parametrize(
    ("present", "told"),
    [
        ((1, 2, 3, 4), None),
        ((1, 2), None),
        ((1,), Loss(1, 4, Counted.ENTRIES)),
        ((), Loss(0, 4, Counted.ENTRIES)),
        ((7, 8, 9), Loss(0, 4, Counted.ENTRIES)),
    ],
)
def test_less_than_half_of_what_is_remembered_is_an_outage(
    present: tuple[int, ...], told: Loss | None
) -> None:
    assert _outage(_hours(1, 2, 3, 4), present) == told


def test_who_remembers_nothing_misses_nothing() -> None:
    assert _outage([], ()) is None


def test_what_was_idle_for_a_week_has_gone_by_itself() -> None:
    week = timedelta(days=7)
    second = timedelta(seconds=1)

    assert _outage(_remembered(week, week, week), ()) is None
    assert _outage(_remembered(week, week + second, 2 * week), ()) is None
    assert _outage(_remembered(week, week, week - second), ()) is not None
    assert _outage(_remembered(week, week, week - second), (3,)) is None


def test_what_the_quota_had_no_room_for_has_gone_by_the_hosts_rules() -> None:
    # Three new entries came to four old ones where there is room for four.
    assert _outage(_hours(1, 2, 3, 4), (1, 11, 12, 13), quota=4 * SIZE) is None


def test_the_quota_explains_no_more_than_was_stored() -> None:
    # One new entry needs the room of one old one.
    assert _outage(_hours(1, 2, 3, 4), (1, 11), quota=4 * SIZE) is not None


def test_a_quota_that_is_not_full_explains_nothing() -> None:
    assert _outage(_hours(1, 2, 3, 4), (1, 11, 12, 13), quota=7 * SIZE) is not None


def test_a_quota_explains_the_whole_entry_that_makes_room_for_a_byte() -> None:
    # Three of four are gone; a byte too much takes one of them, two remain to be explained.
    assert _outage(_hours(1, 2, 3, 4), (1,), quota=4 * SIZE - 1) == Loss(1, 3, Counted.ENTRIES)
    assert _outage(_hours(1, 2, 3, 4), (1,), quota=4 * SIZE) == Loss(1, 4, Counted.ENTRIES)


def test_the_quota_explains_first_what_was_used_longest_ago() -> None:
    """It needs no explanation: it was idle for a week."""
    idle, used = timedelta(days=14), timedelta(hours=1)
    remembered = _remembered(idle, idle, used, used)

    assert _outage(remembered, (11, 12), quota=4 * SIZE) == Loss(0, 2, Counted.ENTRIES)


@pytest.mark.parametrize(("quota", "is_outage"), [(1, True), (199, True), (200, False)])
def test_a_quota_that_was_exceeded_by_far_at_the_last_look_explains_nothing(
    quota: int, is_outage: bool
) -> None:
    """Somebody wrote 10MB instead of 10GB: an outage must not look like an eviction."""
    hidden = _outage(_hours(1, 2, 3, 4), (4, 11), quota=quota)

    assert (hidden is not None) == is_outage


def _without_list(
    live: Iterable[int], missing: Iterable[int] = (), unasked: Iterable[int] = ()
) -> Loss | None:
    known = Memory(
        referenced_blobs=frozenset(map(_digest, range(6))),
        missing_blobs=frozenset(map(_digest, missing)),
    )
    return find_loss(
        known,
        ExpectedEntries(0, (), 0),
        _probe(lists=False, live=live, unasked=unasked),
        _NOTHING,
        StoreLimits(quota=PLENTY),
    )


def test_without_a_list_the_blobs_that_indexes_name_are_counted() -> None:
    assert _without_list(live=(0, 1, 2)) is None
    assert _without_list(live=(0, 1, 9)) == Loss(2, 6, Counted.BLOBS)


def test_without_a_list_blobs_that_were_missing_before_are_not_missed_again() -> None:
    assert _without_list(live=(0, 1), missing=(4, 5)) is None
    assert _without_list(live=(0,), missing=(4, 5)) is not None


def test_without_a_list_blobs_that_were_not_asked_for_are_not_missed() -> None:
    assert _without_list(live=(0,), unasked=(2, 3, 4, 5)) is None
    assert _without_list(live=(0,), unasked=(3, 4, 5)) is not None
    assert _without_list(live=(0, 1), missing=(4, 5), unasked=(4, 5, 6)) is None


def _of_tags(
    known: int,
    stored: int,
    *,
    needed: str = "",
    present: str = "",
    read: Iterable[int] = (),
    unread: Iterable[int] = (),
    deleted: Iterable[int] = (),
) -> Loss | None:
    """Report about a directory of which so many tags were known, and so many exist."""
    world = a_snapshot().with_blobs(*present)
    for number in range(stored):
        world.with_generation(1, *needed, of=_tag(number))
    return _of_known_tags(known, world, read=read, unread=unread, deleted=deleted)


def _of_known_tags(
    known: int,
    world: World,
    *,
    read: Iterable[int] = (),
    unread: Iterable[int] = (),
    deleted: Iterable[int] = (),
) -> Loss | None:
    """Report about a directory of which so many tags were known; another was gone before."""
    place = KnownPlace(1, None, _digest(1))
    return find_loss(
        Memory(places={_tag(number): {1: place} for number in range(known)} | {_tag(9): {}}),
        ExpectedEntries(0, (), 0),
        replace(
            _probe(),
            abilities=Abilities(),
            read=tuple(_read(number) for number in read),
            unread=tuple(UnreadGeneration(_tag(one), 0, Problem("?")) for one in unread),
        ),
        world.build(),
        StoreLimits(),
        deleted=list(map(_tag, deleted)),
    )


def _tag(number: int) -> IndexId:
    return IndexId(MAIN, Scope(f"tag{number}"))


def _read(number: int) -> ReadGeneration:
    return ReadGeneration(_tag(number), 1, Content.of(b""), None, None, NOW, None, None)


def test_where_nothing_is_evicted_less_than_half_of_the_tags_is_an_outage() -> None:
    assert _of_tags(4, 2) is None
    assert _of_tags(4, 1) == Loss(1, 4, Counted.INDEXES)


def test_a_tag_that_was_found_counts_whether_or_not_it_could_be_read() -> None:
    assert _of_tags(4, 1, read=[0]) is not None
    assert _of_tags(4, 1, read=[1]) is None
    assert _of_tags(4, 1, unread=[1]) is None
    assert _of_tags(5, 1, read=[1], unread=[2]) is None
    assert _of_tags(4, 0, read=[1, 2], unread=[2]) is None


def test_what_runs_have_deleted_is_not_missed_unless_it_is_there() -> None:
    assert _of_tags(8, 2, deleted=range(2, 8)) is None
    assert _of_tags(8, 1, deleted=range(2, 6)) == Loss(1, 4, Counted.INDEXES)
    assert _of_tags(8, 4, deleted=range(2)) is None


def test_a_tag_that_was_gone_before_and_is_back_makes_up_for_no_other() -> None:
    assert _of_tags(2, 0, read=[9]) == Loss(0, 2, Counted.INDEXES)


def test_where_nothing_is_evicted_less_than_half_of_what_tags_need_is_an_outage() -> None:
    assert _of_tags(1, 1, needed="abcd", present="ab") is None
    assert _of_tags(1, 1, needed="abcd", present="a") == Loss(1, 4, Counted.NEEDED_BLOBS)


def test_blobs_that_no_tag_needs_hide_no_outage() -> None:
    found = _of_tags(1, 1, needed="abcd", present="awxyz")

    assert found == Loss(1, 4, Counted.NEEDED_BLOBS)


def test_a_tag_that_is_only_remembered_is_not_there_and_needs_nothing() -> None:
    remembered = a_snapshot().remembering(1, "a", of=_tag(0)).remembering(1, "a", of=_tag(1))
    assert _of_known_tags(2, remembered) == Loss(0, 2, Counted.INDEXES)
    stored = a_snapshot().with_blobs("a").with_generation(1, "a", of=_tag(0))
    assert _of_known_tags(2, stored.remembering(1, "b", "c", "d", of=_tag(1))) is None
