"""What leaves a cache that is full, in which order, and that nothing that stays needs it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    NO_REF,
    CacheConfig,
    Digest,
    IndexId,
    Link,
    Record,
    Result,
    Scope,
    decode,
    encode,
    merge,
    prune,
    with_sink,
)
from maintainer.cacheconfig.shrink import ResultId
from maintainer.cacheconfig.timestamps import Nanoseconds, to_datetime
from maintainer.model.reason import LeftForRoom, ProtectedExceedsLimit
from maintainer.model.room import (
    Branch,
    CachedResult,
    Inventory,
    Room,
    StackedLayer,
    size_of,
)
from maintainer.policy.room import make_room
from tests.importer import import_index
from tests.worlds import BLOBS, any_index, describe, leads_to

NOW = datetime(2026, 8, 20, tzinfo=UTC)
DAY = timedelta(days=1)
WEB, API = (IndexId(NO_REF, Scope(name)) for name in ("web", "api"))
SIZES = {blob: 100 * number for number, blob in enumerate(BLOBS)}
_LIMITS = st.integers(min_value=0, max_value=1_600)
_BLOBS = st.frozensets(st.sampled_from(BLOBS))


def _normal(config: CacheConfig) -> CacheConfig:
    return prune(merge([config]), config.blobs)


@st.composite
def caches(draw: st.DrawFn) -> tuple[Mapping[IndexId, CacheConfig], Inventory]:
    """Draw up to two indexes that share blobs, and when builds needed some of their results."""
    drawn = {index: _normal(draw(any_index())) for index in draw(st.permutations([WEB, API]))}
    days = st.none() | st.integers(min_value=-1, max_value=9)
    needed = {
        name: NOW - age * DAY
        for config in drawn.values()
        for name, _ in _results(config)
        if (age := draw(days)) is not None
    }
    return drawn, Inventory.of(drawn, needed, SIZES)


def _results(config: CacheConfig) -> Iterator[tuple[ResultId, frozenset[Digest]]]:
    """Return all results with all blobs that each needs."""
    for record in config.records:
        for result in record.results:
            own = tuple(config.layers[layer].blob for layer in result.layers)
            needs = set(own)
            for layer in result.layers:
                below = config.layers[layer].parent
                while below >= 0:
                    needs.add(config.layers[below].blob)
                    below = config.layers[below].parent
            yield ResultId(record.digest, result.with_parents, own), frozenset(needs)


def _stack(inventory: Inventory, branch: Branch) -> set[int]:
    """Return the layers of a branch and all below them."""
    stack = set()
    for top in branch.layers:
        layer = top
        while layer >= 0:
            stack.add(layer)
            layer = inventory.layers[layer].below
    return stack


def _needs(inventory: Inventory, branch: Branch) -> frozenset[Digest]:
    return frozenset(inventory.layers[layer].blob for layer in _stack(inventory, branch))


def _room(
    inventory: Inventory, most: int, protected: Iterable[Digest] = (), others: int = 0
) -> Room:
    return make_room(inventory, most, NOW, protected=frozenset(protected), others=others)


@given(caches(), _LIMITS, _BLOBS)
def test_nothing_that_stays_needs_what_left(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory], most: int, protected: set[Digest]
) -> None:
    indexes, inventory = cache

    room = _room(inventory, most, protected)

    for config in indexes.values():
        left = prune(config, room.staying)
        assert left.blobs <= room.staying
        assert decode(encode(left)) == left
        chains = leads_to(config)
        assert all(found <= chains[digest] for digest, found in leads_to(left).items())
    for departure in room.departures:
        assert not _needs(inventory, departure.branch) <= room.staying


@given(caches(), _LIMITS, _BLOBS)
def test_each_result_either_stays_with_all_that_it_needs_or_is_listed_as_leaving(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory], most: int, protected: set[Digest]
) -> None:
    indexes, inventory = cache

    room = _room(inventory, most, protected)

    leaving = [one for departure in room.departures for one in departure.branch.results]
    torn = [
        CachedResult(index, name.record)
        for index, config in indexes.items()
        for name, needs in _results(config)
        if not needs <= room.staying
    ]
    assert sorted(leaving, key=repr) == sorted(torn, key=repr)
    for config in indexes.values():
        whole = sum(needs <= room.staying for _, needs in _results(config))
        assert prune(config, room.staying).result_count == whole


@given(caches(), _LIMITS)
def test_builders_find_all_that_stays(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory], most: int
) -> None:
    indexes, inventory = cache

    room = _room(inventory, most)

    for config in indexes.values():
        left = prune(config, room.staying)
        imported = import_index(encode(with_sink(left)), Random(1))
        found = [imported.items[number] for number in imported.found()]
        assert sum(bool(item.results) for item in found) == left.result_count


@given(caches(), _LIMITS, _BLOBS, st.integers(min_value=0, max_value=500))
def test_a_cache_that_is_too_large_is_brought_down_to_its_limit(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory],
    most: int,
    protected: set[Digest],
    others: int,
) -> None:
    _, inventory = cache
    blobs = {blob for one in inventory.branches for blob in _needs(inventory, one)}
    fixed = others + size_of(blobs & protected, SIZES)

    room = _room(inventory, most, protected, others)

    assert room.stored == others + size_of(blobs, SIZES)
    assert room.remaining == others + size_of(room.staying, SIZES)
    assert blobs & protected <= room.staying
    if room.stored <= most:
        assert not room.departures
        assert room.blocked is None
        assert room.staying == blobs
    elif fixed > most:
        assert room.blocked == ProtectedExceedsLimit(most, fixed - others, others)
        assert not room.departures
        assert room.staying == blobs
    else:
        assert room.blocked is None
        assert room.remaining <= most


@given(caches(), _LIMITS)
def test_nothing_leaves_that_would_still_fit(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory], most: int
) -> None:
    _, inventory = cache

    room = _room(inventory, most)

    for departure in room.departures:
        missing = _needs(inventory, departure.branch) - room.staying
        assert room.remaining + size_of(missing, SIZES) > most


@given(caches(), _LIMITS)
def test_a_branch_leaves_before_those_that_it_stands_on(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory], most: int
) -> None:
    _, inventory = cache

    departures = _room(inventory, most).departures

    for place, departure in enumerate(departures):
        stack = _stack(inventory, departure.branch)
        assert not any(stack.issuperset(one.branch.layers) for one in departures[:place])


@given(caches(), _LIMITS)
def test_each_departure_tells_its_place_and_what_it_frees(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory], most: int
) -> None:
    _, inventory = cache

    room = _room(inventory, most)

    waiting = [departure.branch for departure in room.departures]
    for place, departure in enumerate(room.departures, start=1):
        branch = waiting.pop(0)
        needed = room.staying.union(*(_needs(inventory, one) for one in waiting))
        freed = size_of(_needs(inventory, branch) - needed, SIZES)
        reason = departure.reason
        assert (reason.place, reason.freed) == (place, freed)
        assert reason.needed_at == branch.needed_at
    assert sum(one.reason.freed for one in room.departures) == room.stored - room.remaining


@given(caches(), _LIMITS)
def test_the_order_of_the_indexes_does_not_matter(
    cache: tuple[Mapping[IndexId, CacheConfig], Inventory], most: int
) -> None:
    indexes, _ = cache
    turned = dict(reversed(list(indexes.items())))

    one, other = (_room(Inventory.of(every, {}, SIZES), most) for every in (indexes, turned))

    assert one.staying == other.staying
    assert [d.reason for d in one.departures] == [d.reason for d in other.departures]


def _layer(name: str) -> Digest:
    return Digest(f"sha256:{name}")


def _inventory(**stacks: tuple[float, dict[str, int]]) -> Inventory:
    """Return results, each with the days since a build needed it, and the bytes of its layers."""
    layers: dict[StackedLayer, int] = {}
    branches, sizes = [], {}
    for name, (days, stack) in stacks.items():
        below = -1
        for blob, size in stack.items():
            sizes[_layer(blob)] = size
            below = layers.setdefault(StackedLayer(_layer(blob), below), len(layers))
        results = (CachedResult(WEB, name),)
        branches.append(Branch((below,), NOW - days * DAY, results))
    return Inventory(tuple(layers), tuple(branches), sizes)


def _leaving(room: Room) -> list[str]:
    return [one.record for departure in room.departures for one in departure.branch.results]


def test_of_equal_results_the_one_that_was_needed_longest_ago_leaves() -> None:
    inventory = _inventory(new=(1, {"a": 40}), old=(3, {"b": 40}), older=(4, {"c": 40}))

    assert _leaving(_room(inventory, 100)) == ["older"]
    assert _leaving(_room(inventory, 79)) == ["older", "old"]


def test_of_results_needed_at_the_same_time_the_largest_leaves() -> None:
    inventory = _inventory(small=(1, {"a": 30}), large=(1, {"b": 60}), medium=(1, {"c": 40}))

    assert _leaving(_room(inventory, 100)) == ["large"]


def test_a_large_result_leaves_before_a_small_one_that_was_needed_longer_ago() -> None:
    inventory = _inventory(small=(5, {"a": 30}), large=(3, {"b": 60}), new=(0, {"c": 30}))

    assert _leaving(_room(inventory, 100)) == ["large"]


def test_the_age_alone_decides_about_what_takes_less_than_a_fifth_of_the_limit() -> None:
    inventory = _inventory(small=(4, {"a": 11}), larger=(3, {"b": 18}), new=(0, {"c": 65}))

    assert _leaving(_room(inventory, 93)) == ["small"]


def test_the_fifth_is_a_fifth_and_all_above_counts_in_full() -> None:
    def leaving(days: float) -> list[str]:
        a, b, new = (days, {"a": 17}), (0.75, {"b": 24}), (0, {"c": 60})
        return _leaving(_room(_inventory(a=a, b=b, new=new), 100))

    assert leaving(0.85) == ["b"]
    assert leaving(1.05) == ["a"]


def test_six_hours_are_added_to_each_age() -> None:
    def leaving(hours: float) -> list[str]:
        return _leaving(_room(_inventory(new=(0, {"a": 60}), old=(hours / 24, {"b": 30})), 80))

    assert leaving(5.5) == ["new"]
    assert leaving(6.5) == ["old"]


def test_a_blob_in_two_stacks_was_needed_when_either_was() -> None:
    inventory = _inventory(
        below=(9, {"x": 40}), above=(0, {"b": 10, "x": 40}), other=(5, {"other": 55})
    )

    assert _leaving(_room(inventory, 100)) == ["other"]


def test_so_it_was_whichever_stack_comes_first() -> None:
    inventory = _inventory(
        above=(0, {"b": 10, "x": 40}), below=(9, {"x": 40}), other=(5, {"other": 55})
    )

    assert _leaving(_room(inventory, 100)) == ["other"]


def test_a_stack_is_as_old_as_its_oldest_layer() -> None:
    inventory = _inventory(
        stack=(9, {"base": 40, "x": 10}), alone=(0, {"x": 10}), other=(5, {"other": 50})
    )

    assert _leaving(_room(inventory, 60)) == ["stack"]


def test_a_need_in_the_future_counts_as_one_now() -> None:
    inventory = _inventory(ahead=(-1, {"a": 60}), now=(0, {"b": 40}))

    assert _leaving(_room(inventory, 60)) == ["ahead"]


def _with_both(inventory: Inventory, days: float) -> Inventory:
    """Add a result that needs the layers of the first two."""
    (first,), (second,) = (one.layers for one in inventory.branches[:2])
    results = (CachedResult(WEB, "both"),)
    layers = min(first, second), max(first, second)
    both = Branch(layers, NOW - days * DAY, results)
    return replace(inventory, branches=(*inventory.branches, both))


def test_a_result_of_two_layers_is_as_old_as_the_older_one_and_makes_both_young() -> None:
    old = _inventory(b=(9, {"b": 30}), a=(0, {"a": 10}), other=(5, {"other": 45}))
    young = _with_both(old, 0)
    old = _with_both(replace(old, branches=(old.branches[1], *old.branches[::2])), 9)

    assert _leaving(_room(young, 80)) == ["other"]
    leaving = _room(old, 80).departures
    assert [one.branch.results[0].record for one in leaving] == ["both", "b"]
    assert leaving[0].digest == _layer("a")


def test_nor_does_an_old_result_make_a_young_layer_of_it_old() -> None:
    inventory = _inventory(b=(9, {"b": 30}), a=(0, {"a": 30}), other=(5, {"other": 35}))

    assert _leaving(_room(_with_both(inventory, 9), 35))[-1] == "other"


def test_a_layer_that_fits_stays_although_a_result_that_needs_another_one_too_leaves() -> None:
    inventory = _inventory(
        a=(0, {"a": 30}), b=(0, {"b": 80}), c=(3, {"a": 30, "c": 5}), new=(0, {"new": 50})
    )
    every = _with_both(inventory, 0).branches

    assert _leaving(_room(replace(inventory, branches=every[2:]), 100)) == ["both"]


def test_a_blob_that_stays_anyway_takes_no_room_in_another_stack() -> None:
    inventory = _inventory(
        one=(0, {"a": 10, "x": 60}), two=(0, {"b": 10, "x": 60}), old=(9, {"old": 30})
    )

    assert _leaving(_room(inventory, 80)) == ["old"]


def test_a_result_does_not_stay_if_only_its_upper_layer_is_protected() -> None:
    inventory = _inventory(top=(90, {"base": 50, "top": 10}), new=(0, {"new": 60}))

    room = _room(inventory, 100, protected=[_layer("top")])

    assert _leaving(room) == ["top"]
    assert room.staying == {_layer("top"), _layer("new")}


def test_a_result_that_still_fits_stays_although_a_newer_one_has_to_leave() -> None:
    inventory = _inventory(new=(0, {"a": 50}), large=(1, {"b": 60}), old=(9, {"c": 30}))

    room = _room(inventory, 100)

    assert _leaving(room) == ["large"]
    assert (room.stored, room.remaining) == (140, 80)


def test_what_stands_on_a_result_counts_as_a_need_of_it() -> None:
    inventory = _inventory(
        base=(9, {"base": 40}),
        top=(0, {"base": 40, "top": 10}),
        other=(5, {"other": 60}),
    )

    assert _leaving(_room(inventory, 100)) == ["other"]


def test_bytes_that_two_results_share_count_once_and_the_last_one_frees_them() -> None:
    inventory = _inventory(
        one=(2, {"base": 60, "one": 10}),
        two=(1, {"base": 60, "two": 10}),
        new=(0, {"new": 50}),
    )

    room = _room(inventory, 100)

    assert room.stored == 130
    assert [one.reason for one in room.departures] == [
        LeftForRoom(needed_at=NOW - 2 * DAY, size=70, place=1, freed=10),
        LeftForRoom(needed_at=NOW - DAY, size=70, place=2, freed=70),
    ]


def test_a_blob_in_two_stacks_is_freed_once() -> None:
    inventory = _inventory(
        one=(2, {"a": 10, "x": 50}), two=(1, {"b": 10, "x": 50}), new=(0, {"new": 50})
    )

    freed = [one.reason.freed for one in _room(inventory, 100).departures]

    assert freed == [10, 60]


def test_a_blob_that_is_twice_in_one_stack_takes_its_room_once() -> None:
    x, y = _layer("x"), _layer("y")
    layers = (StackedLayer(x, -1), StackedLayer(x, 0), StackedLayer(y, -1))
    twice, old = (
        Branch((layer,), NOW - days * DAY, (CachedResult(WEB, name),))
        for name, layer, days in (("twice", 1, 0), ("old", 2, 9))
    )

    room = _room(Inventory(layers, (twice, old), {x: 40, y: 60}), 60)

    assert _leaving(room) == ["old"]


def test_nothing_leaves_while_the_cache_is_within_its_limit() -> None:
    inventory = _inventory(one=(90, {"a": 50}), two=(0, {"b": 50}))

    assert make_room(inventory, 100, NOW).departures == ()
    assert _leaving(make_room(inventory, 99, NOW)) == ["one"]


def test_layers_that_no_result_needs_take_no_room() -> None:
    inventory = _inventory(one=(9, {"a": 50}), two=(0, {"b": 50}))

    room = _room(replace(inventory, branches=inventory.branches[:1]), 50)

    assert not room.departures
    assert room.stored == 50
    assert room.staying == {_layer("a")}


def test_everything_else_that_is_stored_takes_room_as_well() -> None:
    inventory = _inventory(one=(9, {"a": 50}), two=(0, {"b": 40}))

    assert _leaving(_room(inventory, 100, others=20)) == ["one"]


def test_what_is_protected_stays_however_old_it_is() -> None:
    inventory = _inventory(old=(90, {"a": 50}), new=(0, {"b": 60}))

    assert _leaving(_room(inventory, 100, protected=[_layer("a")])) == ["new"]


def test_nothing_leaves_if_what_is_protected_exceeds_the_limit_alone() -> None:
    inventory = _inventory(old=(90, {"a": 50}), new=(0, {"b": 60}))

    room = _room(inventory, 100, protected=[_layer("b")], others=41)

    assert room.departures == ()
    assert room.blocked == ProtectedExceedsLimit(limit=100, protected=60, others=41)


def test_a_stack_that_no_builder_can_mount_leaves() -> None:
    stack = {str(number): 0 for number in range(1_001)}
    inventory = _inventory(deep=(0, stack), deeper=(0, {**stack, "more": 0}), old=(1, {"a": 50}))

    assert _leaving(_room(inventory, 49)) == ["old", "deeper", "deep"]
    del stack["1000"]
    inventory = _inventory(deep=(0, stack), old=(1, {"a": 50}))
    assert _leaving(_room(inventory, 49)) == ["old"]


def test_it_stays_while_the_cache_is_within_its_limit() -> None:
    inventory = _inventory(deep=(0, {str(number): 0 for number in range(1_001)}), old=(1, {"a": 9}))

    assert [_leaving(_room(inventory, most)) for most in (9, 10)] == [[], []]


def test_a_result_of_unknown_use_was_last_needed_when_it_was_made() -> None:
    made = Nanoseconds(1_700_000_000 * 10**9)
    layers = (describe(BLOBS[1], -1), describe(BLOBS[2], 0))
    config = CacheConfig(
        layers, (Record("key", (Result((1,), with_parents=True, created_at=made),), ()),)
    )

    (branch,) = Inventory.of({WEB: config}, {}, SIZES).branches

    assert branch == Branch((1,), to_datetime(made), (CachedResult(WEB, "key"),))


def test_results_of_several_indexes_on_the_same_layers_are_one_branch_needed_by_the_latest() -> (
    None
):
    layers = (describe(BLOBS[1], -1), describe(BLOBS[2], 0))
    chain = Result((0, 1), with_parents=False, created_at=Nanoseconds(0))
    stack = Result((1,), with_parents=True, created_at=Nanoseconds(0))
    indexes = {
        WEB: CacheConfig(layers, (Record("web", (chain,), ()),)),
        API: CacheConfig(layers, (Record("api", (stack,), ()),)),
    }
    used = ResultId("api", with_parents=True, blobs=(BLOBS[2],))

    (branch,) = Inventory.of(indexes, {used: NOW - DAY}, SIZES).branches

    assert branch.results == (CachedResult(WEB, "web"), CachedResult(API, "api"))
    assert branch.needed_at == NOW - DAY


def test_a_record_whose_result_left_stays_while_it_leads_to_one_that_stays() -> None:
    layers = (describe(BLOBS[5], -1), describe(BLOBS[1], -1))
    first, second = (Result((n,), with_parents=True, created_at=Nanoseconds(0)) for n in (0, 1))
    config = CacheConfig(
        layers,
        (Record("compile", (first,), ()), Record("copy", (second,), ((Link(0, ""),),))),
    )

    room = _room(Inventory.of({WEB: config}, {}, SIZES), 500)
    left = prune(config, room.staying)

    assert _leaving(room) == ["compile"]
    assert [(one.digest, bool(one.results)) for one in left.records] == [
        ("compile", False),
        ("copy", True),
    ]
