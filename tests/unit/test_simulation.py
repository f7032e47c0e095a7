"""What builds would have found in a cache of any size: no more than there was."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Digest, Result
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.model.history import Build, History, Stack, stack_of
from maintainer.model.limits import KeepFree
from maintainer.simulation import Policy, Stored, policies, replay, simulate
from tests.snapshots import NOW
from tests.worlds import BLOBS, describe

HOUR = timedelta(hours=1)
EVERY = policies(KeepFree(share=0.15), evicts=True)
POLICIES = {one.name: one for one in EVERY}
_BLOBS = [Digest(f"sha256:{number:064x}") for number in range(7)]
_SIZES = {blob: 100 * number for number, blob in enumerate(_BLOBS)}
_QUOTAS = st.integers(0, 2_500)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw builds, hours apart, of results that stand on each other."""
    stacks: dict[int, Stack] = {}
    for key, blob in enumerate(draw(st.permutations(_BLOBS))):
        below: Stack = stacks[draw(st.integers(0, key - 1))] if key and draw(st.booleans()) else ()
        stacks[key] = (*below, blob)
    at, builds = NOW, []
    for keys in draw(st.lists(st.sets(st.sampled_from(sorted(stacks)), min_size=1), min_size=1)):
        at += draw(st.sampled_from([0, 1, 30])) * HOUR
        builds.append(Build(at, tuple(sorted(keys))))
    needed = {key for build in builds for key in build.keys}
    return History(tuple(builds), {key: stacks[key] for key in sorted(needed)}, _SIZES)


@given(histories(), _QUOTAS, st.sampled_from(EVERY))
def test_no_build_finds_more_than_was_exported_before(
    history: History, quota: int, policy: Policy
) -> None:
    steps = list(replay(history, quota, policy.after_build, policy.daily))

    assert len(steps) == len(history.builds)
    assert sum(step.needed for step in steps) == history.findable
    assert all(0 <= step.found <= step.needed for step in steps)
    assert all(step.size <= quota for step in steps)


@given(histories(), st.sampled_from(EVERY))
def test_builds_find_everything_if_there_is_room_for_all(history: History, policy: Policy) -> None:
    steps = replay(history, 2 * history.written, policy.after_build, policy.daily)

    assert sum(step.found for step in steps) == history.findable


@given(histories(), _QUOTAS)
def test_no_chain_is_ever_torn_where_whole_results_leave(history: History, quota: int) -> None:
    order = POLICIES["room"].after_build
    assert order
    stored = Stored(history)

    for turn, build in enumerate(history.builds):
        stored.add(turn, build)
        stored.keep(order(stored, quota))

        complete = {blob for key in stored.keys for blob in history.stacks[key]}
        assert set(stored.blobs) == complete
        assert stored.size <= quota


def test_github_evicts_a_layer_that_another_one_needs() -> None:
    base, app, tool = _BLOBS[3], _BLOBS[1], _BLOBS[2]
    builds = (Build(NOW, (0,)), Build(NOW + HOUR, (1,)), Build(NOW + 2 * HOUR, (0, 1)))
    history = History(builds, {0: (base, app), 1: (tool,)}, _SIZES)

    steps = list(replay(history, 450, POLICIES["github"].after_build))

    assert [step.size for step in steps] == [400, 300, 300]
    assert [(step.needed, step.found) for step in steps] == [(0, 0), (0, 0), (2, 1)]


def test_a_daily_run_comes_once_a_day_and_lets_the_cache_exceed_its_quota_in_between() -> None:
    stacks = {key: (blob,) for key, blob in enumerate(_BLOBS)}
    builds = tuple(Build(NOW + 25 * number * HOUR, (number,)) for number in range(6))
    (daily,) = (one for one in policies(KeepFree(size=100), evicts=False) if one.name == "daily")

    sizes = [step.size for step in replay(History(builds, stacks, _SIZES), 500, None, daily.daily)]

    assert sizes == [0, 100, 300, 600, 800, 900]


def test_a_store_that_evicts_nothing_has_no_order_of_its_own() -> None:
    assert [one.name for one in policies(KeepFree(), evicts=False)] == ["daily", "room"]


def test_a_curve_has_few_points_that_add_up() -> None:
    builds = tuple(Build(NOW + number * HOUR, (number % 3,)) for number in range(130))
    history = History(builds, {key: (_BLOBS[key + 1],) for key in range(3)}, _SIZES)

    (cache,) = simulate(history, [500], [POLICIES["github"]])

    assert len(cache.points) == 44
    assert cache.points[-1].at == builds[-1].at
    assert sum(point.needed for point in cache.points) == history.findable == 127
    assert sum(point.found for point in cache.points) == cache.found
    assert cache.largest == max(point.size for point in cache.points)
    assert cache.size == cache.points[-1].size


@given(histories(), st.integers(0, 30))
def test_of_a_long_history_the_last_builds_remain(history: History, most: int) -> None:
    latest = history.latest(most)

    count = len(latest.builds)
    assert latest.builds == history.builds[-count:]
    assert latest.stacks == {key: history.stacks[key] for one in latest.builds for key in one.keys}
    assert count == 1 or count * len(latest.stacks) <= most
    one_more = history.builds[-count - 1 :]
    needed = len({key for build in one_more for key in build.keys})
    assert one_more == latest.builds or len(one_more) * needed > most


def test_a_result_needs_all_below_its_layer_or_its_layers_alone() -> None:
    low, high = BLOBS[1], BLOBS[2]
    layers = (describe(low, -1), describe(high, 0))
    stack = Result((1,), with_parents=True, created_at=Nanoseconds(0))
    chain = Result((0, 1), with_parents=False, created_at=Nanoseconds(0))

    needed = [stack_of(CacheConfig(layers, ()), result) for result in (stack, chain)]

    assert needed == [(low, high), (low, high)]
