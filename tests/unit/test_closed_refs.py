"""Entries of closed refs leave after an hour, whatever they are; nothing else leaves with them."""

from datetime import datetime, timedelta

import pytest

from maintainer.mark import mark
from maintainer.model.decision import DeleteEntry, Keep, Plan, Rules
from maintainer.model.marks import State
from maintainer.model.reason import ClosedRef, Grace, PullRequestClosed, RefDeleted
from maintainer.plan import make_plan
from tests.snapshots import MAIN, NOW, PULL, WEB, World, a_snapshot, ago, blob_key, hours

MOMENT = timedelta(microseconds=1)
LONG_CLOSED = PullRequestClosed(7, ago(hours(48)))
NODE = "setup-node-Linux"


def _plan(world: World, **rules: bool) -> Plan:
    return make_plan(mark(world.build()), Rules(grace=hours(24), **rules))  # type: ignore[arg-type]


def _fates(world: World) -> list[DeleteEntry | Keep]:
    plan = _plan(world)
    return [*plan.deletes, *(keep for keep in plan.keeps if keep.store_id is not None)]


def test_entries_of_every_kind_and_tool_leave() -> None:
    world = a_snapshot().with_blob("layer", ref=PULL).with_entry(NODE, ref=PULL)
    world.with_entry("index-web-1-00000000#1", ref=PULL).where_closed(PULL, LONG_CLOSED)

    deletes = _plan(world).deletes

    assert {one.entry.key for one in deletes} == {
        blob_key("layer"),
        NODE,
        "index-web-1-00000000#1",
    }
    assert {(one.state, one.reason, one.after) for one in deletes} == {
        (State.CLOSED, LONG_CLOSED, frozenset())
    }


def test_the_same_entries_in_other_refs_stay() -> None:
    world = a_snapshot().with_blob("layer", ref=PULL).with_entry(NODE, ref=PULL)
    world.with_blobs("layer").with_generation(1, "layer").with_entry(NODE)

    assert _fates(world) == []


@pytest.mark.parametrize(
    ("reason", "used", "since"),
    [
        (PullRequestClosed(7, ago(hours(1))), hours(48), ago(hours(1))),
        (PullRequestClosed(7, ago(hours(48))), hours(1), ago(hours(1))),
        (PullRequestClosed(7, None), hours(1), ago(hours(1))),
        (RefDeleted(PULL), hours(1), ago(hours(1))),
    ],
)
def test_an_hour_passes_since_the_last_use_and_since_it_was_closed(
    reason: ClosedRef, used: timedelta, since: datetime
) -> None:
    [fate] = _fates(a_snapshot().with_blob("a", ref=PULL, used=used).where_closed(PULL, reason))
    assert isinstance(fate, DeleteEntry)

    later = reason
    if isinstance(reason, PullRequestClosed) and reason.closed_at:
        later = PullRequestClosed(7, reason.closed_at + MOMENT)
    world = a_snapshot().with_blob("a", ref=PULL, used=used - MOMENT).where_closed(PULL, later)
    [kept] = _fates(world)
    assert isinstance(kept, Keep)
    assert kept.reason == Grace("closed ref", since + MOMENT, NOW + MOMENT)


def test_they_leave_after_what_is_unreferenced() -> None:
    world = a_snapshot().with_blob("closed", ref=PULL).where_closed(PULL, LONG_CLOSED)
    world.with_blob("dangling").with_generation(1, of=WEB).with_generation(2, of=WEB)

    keys = [one.entry.key for one in _plan(world).deletes]

    assert keys == [str(WEB.key(1)), blob_key("dangling"), blob_key("closed")]


def test_an_incomplete_list_does_not_keep_them() -> None:
    world = a_snapshot().with_blob("a", ref=PULL).where_closed(PULL, LONG_CLOSED).listed_in_part()

    assert [type(fate) for fate in _fates(world)] == [DeleteEntry]


def test_a_repair_does_not_touch_them() -> None:
    world = a_snapshot().with_blob("a", ref=PULL).where_closed(PULL, LONG_CLOSED)

    assert _plan(world, repair=True).deletes == ()


def test_a_ref_that_the_token_reads_is_not_closed_whatever_the_store_says() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_entry(NODE)
    world.where_closed(MAIN, LONG_CLOSED)

    assert _plan(world).deletes == ()
