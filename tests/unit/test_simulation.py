"""What builds would have found in a cache of any size: no more than there was."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Digest, Result
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.errors import MaintainerError
from maintainer.model.history import Build, History, Stack, stack_of
from maintainer.model.limits import KeepFree
from maintainer.report.model import Space
from maintainer.report.page.cells import Table
from maintainer.report.simulation import (
    Simulation,
    caches_table,
    format_simulation,
    found_table,
    quotas_table,
    simulate_cache,
    stored_table,
)
from maintainer.simulation import Policy, Stored, policies, replay, simulate
from tests.reports import DIRECTORY, a_report
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


# What is said of it.


def _simulation(builds: int = 3, **more: object) -> Simulation:
    history = History(
        tuple(Build(NOW + number * HOUR, (number % 2,)) for number in range(builds)),
        {key: (_BLOBS[key + 1],) for key in range(min(builds, 2))},
        _SIZES,
    )
    return simulate_cache(a_report(), history, **more)  # type: ignore[arg-type]


def test_nothing_is_simulated_if_no_export_is_known() -> None:
    nothing = History((), {}, {})
    with pytest.raises(MaintainerError, match="remembers no export: run `maintainer gc` after"):
        simulate_cache(a_report(), nothing)
    with pytest.raises(MaintainerError, match="remembers no export: of a tag it knows the last"):
        simulate_cache(a_report(store=DIRECTORY), nothing)


def test_a_policy_of_a_store_that_evicts_needs_one() -> None:
    history = History((Build(NOW, (1,)),), {1: (_BLOBS[1],)}, _SIZES)

    with pytest.raises(MaintainerError, match="from a directory: use daily or room"):
        simulate_cache(a_report(store=DIRECTORY), history, policy="github")


def test_quotas_are_parts_of_what_was_written_and_the_quota_of_the_cache_if_it_is_less() -> None:
    assert sorted({one.quota for one in _simulation().caches}) == [30, 75, 150, 300]
    space = Space(200, 100, ())
    history = History((Build(NOW, (2,)),), {2: (_BLOBS[2], _BLOBS[1])}, _SIZES)

    report = a_report(space=space)

    assert {one.quota for one in simulate_cache(report, history).caches} == {30, 75, 150, 200, 300}
    assert {one.quota for one in _simulation(quotas=(7, 7)).caches} == {7}


def test_notes_say_what_each_policy_does_and_what_is_not_simulated() -> None:
    notes = _simulation(keep_free=KeepFree(size=50_000_000)).notes
    assert notes[1] == (
        "daily: Once a day, a run lets whole results leave, so that 50.0 MB is free. In between, "
        "GitHub evicts."
    )
    assert notes[-1] == (
        "GitHub also evicts what nobody has used for a week. That is not simulated."
    )

    history = History((Build(NOW, (1,)),), {1: (_BLOBS[1],)}, _SIZES)
    alone = simulate_cache(a_report(store=DIRECTORY), history, policy="room").notes

    assert alone[0] == "room: After each build, whole results leave if the quota is exceeded."
    assert "GitHub" not in "".join(alone)


def test_lines_say_how_many_exports_at_which_time_and_what_comes_on_top() -> None:
    what, rest = format_simulation(_simulation())
    assert what == (
        "3 exports from 2026-08-01 12:00 UTC to 2026-08-01 14:00 UTC needed 3 results and "
        "wrote 300 B. 1 of the results had been exported before: a cache without a quota returns "
        "these."
    )
    assert rest == "Everything else takes 3.0 kB now, which comes on top."

    history = History((Build(NOW, (1,)), Build(NOW, (1,))), {1: (_BLOBS[1],)}, _SIZES)
    once = list(format_simulation(simulate_cache(a_report(space=None), history)))

    assert once[0].startswith("2 exports at 2026-08-01 12:00 UTC needed 2 results")
    assert once[1:] == [
        "All were found at one time, which says little: simulate again after more builds."
    ]


def _texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_tables_show_what_was_found_by_quota_policy_and_time() -> None:
    simulation = _simulation(quotas=(1, 300))

    assert _texts(caches_table(simulation))[-1] == [
        "300 B",
        "room",
        "1",
        "100.0 %",
        "300 B",
        "300 B",
    ]
    quotas = quotas_table(simulation)
    assert quotas.columns == ("quota", "github", "daily", "room")
    assert _texts(quotas)[0] == ["1 B", "0 (0.0 %)", "0 (0.0 %)", "0 (0.0 %)"]
    assert _texts(found_table(simulation))[0] == ["2026-08-01 14:00 UTC", "0.0 %", "100.0 %"]
    assert _texts(stored_table(simulation))[0] == ["2026-08-01 14:00 UTC", "0 B", "300 B"]


def test_nothing_that_could_be_found_has_no_share() -> None:
    simulation = _simulation(builds=1, quotas=(300,), policy="room")

    assert _texts(caches_table(simulation)) == [["300 B", "room", "0", "", "100 B", "100 B"]]
    assert _texts(quotas_table(simulation)) == [["300 B", "0"]]
    assert _texts(found_table(simulation)) == []
