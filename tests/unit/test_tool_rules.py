"""Rules of other tools: each limit on its own, all together, and never an entry of BuildKit's."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import Ref
from maintainer.mark import mark
from maintainer.model.decision import DeleteEntry, Keep, Plan, Rules
from maintainer.model.limits import ToolRule
from maintainer.model.marks import State
from maintainer.model.reason import (
    BeyondNewest,
    BeyondSize,
    Grace,
    PullRequestClosed,
    Reason,
    Unused,
)
from maintainer.plan import make_plan
from tests.snapshots import (
    MAIN,
    NOW,
    PULL,
    RELEASE,
    WEB,
    World,
    a_snapshot,
    ago,
    blob_key,
    hours,
)

DAY = timedelta(days=1)
MOMENT = timedelta(microseconds=1)
NODE = "setup-node-"


def _plan(world: World, *rules: ToolRule, repair: bool = False) -> Plan:
    return make_plan(mark(world.build()), Rules(grace=DAY, tools=rules, repair=repair))


def _deleted(world: World, *rules: ToolRule) -> dict[str, Reason]:
    """Return what leaves and why; all keys differ."""
    return {one.entry.key: one.reason for one in _plan(world, *rules).deletes}


def _nodes(*ages: float) -> World:
    """Return entries setup-node-0, -1, … that were created so many hours ago."""
    world = a_snapshot()
    for number, age in enumerate(ages):
        world.with_entry(f"{NODE}{number}", age=hours(age))
    return world


def test_older_databases_of_the_action_are_deleted_and_nothing_that_looks_like_one() -> None:
    rule = ToolRule.of_saved("maintainer-db", frozenset({Ref(MAIN)}))
    world = a_snapshot()
    # The numbers of runs are no times.
    for age, run in enumerate((7, 12, 5, 90), 1):
        world.with_entry(f"maintainer-db#{run}-1-maintain", age=hours(age))
    for name in ("", "-web#1-1-job", "x#1-1-job", "#1-job", "-1-1-job", "#web#1-1-job"):
        world.with_entry(f"maintainer-db{name}", age=hours(99))
    world.with_entry("maintainer-db#1-1-maintain", ref=RELEASE, age=hours(99))

    assert _deleted(world, rule) == dict.fromkeys(
        ("maintainer-db#5-1-maintain", "maintainer-db#90-1-maintain"),
        BeyondNewest("maintainer-db#", 2),
    )


def test_the_newest_of_each_ref_stay() -> None:
    world = _nodes(3, 1, 2)
    world.with_entry(f"{NODE}release", ref=RELEASE, age=hours(50))

    deleted = _deleted(world, ToolRule(NODE, keep_newest=2))

    assert deleted == {f"{NODE}0": BeyondNewest(NODE, 2)}


def test_of_entries_of_the_same_time_the_one_with_the_higher_number_is_newer() -> None:
    assert set(_deleted(_nodes(1, 1), ToolRule(NODE, keep_newest=1))) == {f"{NODE}0"}


def test_what_nobody_used_for_so_long_leaves_and_the_rest_stays_until_then() -> None:
    world = a_snapshot().with_entry(f"{NODE}old", used=5 * DAY)
    world.with_entry(f"{NODE}used", used=5 * DAY - MOMENT).with_entry("v0-rust-old", used=9 * DAY)

    plan = _plan(world, ToolRule(NODE, unused_for=5 * DAY))

    [delete] = plan.deletes
    [keep] = [one for one in plan.keeps if one.store_id is not None]
    assert delete.entry.key == f"{NODE}old"
    assert delete.state is State.FOREIGN
    assert delete.reason == Unused(NODE, 5 * 86_400, ago(5 * DAY))
    assert keep.subject == f"{NODE}used"
    assert keep.reason == Grace("unused", ago(5 * DAY - MOMENT), NOW + MOMENT)


def test_what_was_used_longest_ago_leaves_until_the_rest_fits() -> None:
    """Each entry has ten bytes."""
    world = a_snapshot().with_entry(f"{NODE}a", used=2 * DAY).with_entry(f"{NODE}b", used=3 * DAY)
    world.with_entry(f"{NODE}c", used=DAY).with_entry("other", used=9 * DAY)
    too_much = BeyondSize(NODE, 19)

    assert _deleted(world, ToolRule(NODE, max_bytes=30)) == {}
    assert set(_deleted(world, ToolRule(NODE, max_bytes=29))) == {f"{NODE}b"}
    assert _deleted(world, ToolRule(NODE, max_bytes=19)) == {
        f"{NODE}a": too_much,
        f"{NODE}b": too_much,
    }
    assert len(_deleted(world, ToolRule(NODE, max_bytes=9))) == 3


def test_the_last_use_counts_more_than_the_age_which_decides_between_equals() -> None:
    def leaves(used: timedelta) -> set[str]:
        world = a_snapshot().with_entry(f"{NODE}new", age=5 * DAY, used=used)
        world.with_entry(f"{NODE}old", age=9 * DAY, used=DAY)
        return set(_deleted(world, ToolRule(NODE, max_bytes=10)))

    assert leaves(3 * DAY) == {f"{NODE}new"}
    assert leaves(DAY) == {f"{NODE}old"}


def test_what_one_limit_excludes_does_not_count_for_the_next() -> None:
    world = _nodes(1, 30, 50, 4)
    rule = ToolRule(NODE, keep_newest=3, unused_for=DAY, max_bytes=20)

    deleted = _deleted(world, rule)

    assert deleted == {
        f"{NODE}2": BeyondNewest(NODE, 3),
        f"{NODE}1": Unused(NODE, 86_400, ago(hours(30))),
    }
    assert set(_deleted(world, replace(rule, max_bytes=10))) == {f"{NODE}{n}" for n in (1, 2, 3)}


def test_the_first_rule_that_excludes_an_entry_is_its_reason() -> None:
    world = _nodes(1, 2, 3)

    deleted = _deleted(world, ToolRule(NODE, keep_newest=2), ToolRule("setup-", max_bytes=10))

    assert deleted == {
        f"{NODE}2": BeyondNewest(NODE, 2),
        f"{NODE}1": BeyondSize("setup-", 10),
    }


def test_an_entry_that_one_rule_excludes_and_another_keeps_leaves() -> None:
    world = _nodes(1, 2)
    plan = _plan(world, ToolRule(NODE, unused_for=DAY), ToolRule("setup-", keep_newest=1))

    assert [one.entry.key for one in plan.deletes] == [f"{NODE}1"]
    assert [one.subject for one in plan.keeps if one.store_id is not None] == [f"{NODE}0"]


def test_no_entry_of_buildkit_leaves_whatever_the_prefix_says() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a").with_generation(2, "a")
    world.with_entry("index-other-1-00000000#1").with_blob("c", ref=PULL)
    # Another version of BuildKit, or of its client, wrote this.
    world.with_other_version(blob_key("d"))
    for key in (
        "buildkit-blob-2-sha256:00",
        "index-web-2-00000000#1",
        "Index-a\nb-10-0000000A-sig#9",
    ):
        world.with_entry(key)
    rules = [
        ToolRule(prefix, keep_newest=1, unused_for=timedelta(seconds=1), max_bytes=1)
        for prefix in ("buildkit", "index-", "Index-", "i", "b")
    ]

    assert _plan(world, *rules).deletes == _plan(world).deletes


def test_an_entry_that_is_listed_without_number_or_times_stays() -> None:
    world = a_snapshot().with_unnumbered_entry(f"{NODE}odd").with_entry(f"{NODE}even")
    world.with_unnumbered_entry("odd", ref=PULL).where_closed(PULL, PullRequestClosed(7, None))

    assert set(_deleted(world, ToolRule(NODE, unused_for=DAY))) == {f"{NODE}even"}


def test_entries_of_closed_refs_leave_as_such_and_do_not_count() -> None:
    world = _nodes(30).with_entry(f"{NODE}closed", ref=PULL)
    world.where_closed(PULL, closed := PullRequestClosed(7, None))

    assert _deleted(world, ToolRule(NODE, max_bytes=10)) == {f"{NODE}closed": closed}


def test_they_leave_last() -> None:
    world = _nodes(40).with_entry("closed", ref=PULL).with_blobs("dangling")
    world.where_closed(PULL, PullRequestClosed(7, None))
    world.with_generation(1, of=WEB).with_generation(2, of=WEB)

    plan = _plan(world, ToolRule(NODE, unused_for=DAY))

    keys = [one.entry.key for one in plan.deletes]
    assert keys == [str(WEB.key(1)), blob_key("dangling"), "closed", f"{NODE}0"]


def test_a_repair_does_not_touch_them() -> None:
    assert _plan(_nodes(40), ToolRule(NODE, unused_for=DAY), repair=True).deletes == ()


_RULES = st.builds(
    ToolRule,
    st.sampled_from(["", "a", "ab", "b"]),
    st.none() | st.integers(1, 3),
    st.none() | st.integers(1, 9).map(hours),
    st.none() | st.integers(1, 80),
)
_ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["a", "ab", "b", "c"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.sampled_from([MAIN, PULL]),
    ),
    max_size=9,
)


@given(_ENTRIES, st.lists(_RULES, max_size=3))
def test_after_a_run_every_limit_holds_and_a_second_one_deletes_nothing(
    entries: list[tuple[str, int, int, str]], rules: list[ToolRule]
) -> None:
    world = a_snapshot()
    for number, (prefix, age, used, ref) in enumerate(entries):
        world.with_entry(
            f"{prefix}-{number}",
            age=hours(age),
            used=hours(min(age, used)),
            ref=ref,  # type: ignore[arg-type]
        )
    marks = mark(world.build())
    planned = make_plan(marks, Rules(grace=DAY, tools=tuple(rules)))
    gone = {one.entry.store_id for one in planned.deletes}
    left = [one for one in marks.marks if one.entry.store_id not in gone]

    again = make_plan(replace(marks, marks=tuple(left)), Rules(grace=DAY, tools=tuple(rules)))

    assert again.deletes == ()
    assert all(isinstance(one, DeleteEntry) for one in planned.deletes)
    assert all(isinstance(one, Keep) for one in planned.keeps)
    for rule in rules:
        matching = [one.entry for one in left if one.entry.key.startswith(rule.prefix)]
        assert rule.max_bytes is None or sum(one.size for one in matching) <= rule.max_bytes
        for ref in (MAIN, PULL):
            here = [one for one in matching if one.ref == ref]
            assert rule.keep_newest is None or len(here) <= rule.keep_newest
        if rule.unused_for is not None:
            assert all(NOW - one.last_use_at < rule.unused_for for one in matching)
