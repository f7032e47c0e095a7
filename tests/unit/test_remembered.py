"""What is remembered of an index: the algebra of reading, losing and forgetting."""

from collections.abc import Iterable
from datetime import date, timedelta
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Digest, Sink, forget, merge, prune
from maintainer.model.remembered import Remembered
from tests.snapshots import an_index, blob
from tests.worlds import BLOBS, any_index, builds_of_one_repository, leads_to

TODAY = date(2026, 8, 1)
_blobs = st.frozensets(st.sampled_from(BLOBS))
_builds = builds_of_one_repository(count=4)


def _needs(config: CacheConfig) -> set[frozenset[Digest]]:
    """Return which blobs each result needs, with all that stand below."""
    told = set()
    for record in config.records:
        for result in record.results:
            waiting, needed = list(result.layers), set()
            while waiting:
                layer = config.layers[waiting.pop()]
                needed.add(layer.blob)
                waiting += [layer.parent] if layer.parent >= 0 else []
            told.add(frozenset(needed))
    return told


def _read(*configs: CacheConfig) -> Remembered:
    return Remembered().with_generations(configs)


def _holds(larger: CacheConfig, smaller: CacheConfig) -> bool:
    found = leads_to(larger)
    return all(chains <= found.get(digest, set()) for digest, chains in leads_to(smaller).items())


# Numbered indexes.


@given(_builds, st.randoms(use_true_random=False), st.integers(0, 4))
def test_it_does_not_matter_in_which_order_generations_arrive_or_how_many_at_once(
    builds: list[CacheConfig], random: Random, at_once: int
) -> None:
    mixed = random.sample(builds, len(builds))
    one_by_one = _read(*mixed[:at_once])
    for build in mixed[at_once:]:
        one_by_one = one_by_one.with_generations([build])

    assert one_by_one == _read(*builds)
    assert one_by_one.merged() == merge(builds)


@given(_builds)
def test_what_is_read_again_changes_nothing(builds: list[CacheConfig]) -> None:
    known = _read(*builds)

    assert known.with_generations(builds[:1]) == known
    assert known.with_generations([known.merged()]) == known


@given(_builds, _blobs)
def test_what_we_write_of_it_tells_nothing_new(
    builds: list[CacheConfig], live: set[Digest]
) -> None:
    known = _read(*builds)
    written = prune(known.merged(), live)

    assert _holds(known.merged(), known.with_generations([written]).merged())


@given(any_index(), _blobs)
def test_forgetting_drops_just_the_results_that_need_what_is_gone(
    config: CacheConfig, gone: set[Digest]
) -> None:
    known = _read(config)
    left = known.without(gone)

    assert _needs(left.merged()) == {
        needed for needed in _needs(known.merged()) if needed.isdisjoint(gone)
    }
    assert left.without(gone) == left


def test_a_result_that_is_older_is_remembered_beside_a_newer_one() -> None:
    # As a merge for builders keeps the newest only.
    old, new = an_index("old"), an_index("new")
    both = merge(
        CacheConfig(one.layers, (one.records[0].__class__("key", one.records[0].results, ()),))
        for one in (old, new)
    )
    assert prune(both, both.blobs).blobs != both.blobs

    assert forget(both, ()).blobs == {blob("old"), blob("new")}


@given(_builds, st.lists(_blobs, min_size=4, max_size=4), _blobs)
def test_nothing_that_is_live_is_ever_lost(
    builds: list[CacheConfig], losses: list[set[Digest]], live: set[Digest]
) -> None:
    known = Remembered()
    for build, lost in zip(builds, losses, strict=True):
        # What has been gone for long, and is not there now either, is forgotten in between.
        known = known.with_generations([build]).without(lost - live)

    assert _holds(prune(known.merged(), live), prune(merge(builds), live))


# Tags.

_exports = st.tuples(st.lists(st.integers(0, 40), min_size=4, max_size=4).map(sorted), _builds).map(
    lambda drawn: list(zip(*drawn, strict=True))
)
"""What builds have exported to one tag, each so many days after the first day."""


def _seen(exports: Iterable[tuple[int, CacheConfig]]) -> Remembered:
    known = Remembered()
    for day, config in exports:
        known = known.with_export(config, None, TODAY + timedelta(days=day))
    return known


@given(_exports, st.integers(0, 80))
def test_the_newest_export_counts_and_what_was_replaced_since(
    exports: list[tuple[int, CacheConfig]], first: int
) -> None:
    known = _seen(exports).since(TODAY + timedelta(days=first))

    replaced_at = [day for day, _ in exports[1:]]
    kept = [
        config for (_, config), day in zip(exports[:-1], replaced_at, strict=True) if day >= first
    ]
    assert _needs(merge(known.parts)) == _needs(merge([exports[-1][1], *kept]))
    assert _needs(known.config) == _needs(exports[-1][1])


@given(_exports)
def test_an_export_that_is_seen_again_changes_nothing(
    exports: list[tuple[int, CacheConfig]],
) -> None:
    known = _seen(exports)

    assert known.with_export(exports[-1][1], None, TODAY + timedelta(days=99)) == known


@given(_exports, _blobs)
def test_what_a_run_writes_to_a_tag_makes_nothing_younger(
    exports: list[tuple[int, CacheConfig]], live: set[Digest]
) -> None:
    known = _seen(exports)
    written = prune(known.merged(), live)

    after = known.with_export(written, Sink.REWRITE, TODAY + timedelta(days=99))

    assert after == known or not known.config.records


def test_of_what_another_run_has_written_is_remembered_what_nobody_has_seen() -> None:
    known = _seen([(0, an_index("a")), (1, an_index("b"))])

    after = known.with_export(an_index("a", "b", "c"), Sink.REWRITE, TODAY)

    assert after.config == merge([an_index("b", "c")])
    assert after.replaced == known.replaced


@given(_exports, _exports)
def test_two_that_read_what_the_other_has_written_come_to_write_the_same(
    exports: list[tuple[int, CacheConfig]], others: list[tuple[int, CacheConfig]]
) -> None:
    assume(_each_step_takes_as_many_inputs(config for _, config in [*exports, *others]))
    as_builders_write_them = [(day, merge([config])) for day, config in [*exports, *others]]
    ours = _seen(as_builders_write_them[: len(exports)])
    theirs = _seen(
        [*as_builders_write_them[len(exports) :], as_builders_write_them[len(exports) - 1]]
    )
    for _ in range(2):
        theirs = theirs.with_export(_written(ours), Sink.REWRITE, TODAY)
        ours = ours.with_export(_written(theirs), Sink.REWRITE, TODAY)

    assert _written(ours) == _written(theirs)


def _each_step_takes_as_many_inputs(configs: Iterable[CacheConfig]) -> bool:
    """Return whether it does in each index that has it, as the steps of a Dockerfile do."""
    inputs = {(one.digest, len(one.inputs)) for config in configs for one in config.records}
    return len(inputs) == len({digest for digest, _ in inputs})


def _written(known: Remembered) -> CacheConfig:
    """Return what a run writes while no blob is gone."""
    return prune(known.merged(), known.blobs)


def test_what_was_taken_over_of_a_merge_is_forgotten_and_no_export_of_a_tag() -> None:
    taken_over = Remembered().with_merge(an_index("a", "b"), TODAY)
    tag = _seen([(0, an_index("a")), (1, an_index("c"))])

    left = taken_over.without_taken_over([an_index("a")])

    assert left.replaced == {TODAY: an_index("b")}
    assert tag.without_taken_over([an_index("a")]) == tag
    assert Remembered().without_taken_over([an_index("a")]) == Remembered()


def test_without_a_memory_what_a_run_has_written_is_all_that_there_is() -> None:
    assert Remembered().with_export(an_index("a"), Sink.REWRITE, TODAY).config == an_index("a")


def test_what_is_replaced_on_one_day_is_forgotten_together() -> None:
    known = _seen([(0, an_index("a")), (1, an_index("b")), (1, an_index("c"))])

    assert known.merged().blobs == {blob("a"), blob("b"), blob("c")}
    assert known.since(TODAY + timedelta(days=1)) == known
    assert known.since(TODAY + timedelta(days=2)).merged() == an_index("c")


def test_what_is_gone_is_forgotten_in_all_parts() -> None:
    known = _seen([(0, an_index("a", "gone")), (1, an_index("b", "gone"))])

    left = known.without({blob("gone")})

    assert left.merged() == merge([an_index("a", "b")])
    assert [part.blobs for part in left.parts] == [{blob("b")}, {blob("a")}]
    assert left.blobs == {blob("a"), blob("b")}


@given(_exports, st.integers(0, 80))
def test_what_only_merges_contain_is_forgotten_by_the_days_on_which_they_were_taken_over(
    merges: list[tuple[int, CacheConfig]], first: int
) -> None:
    known = Remembered()
    for day, config in merges:
        known = known.with_merge(config, TODAY + timedelta(days=day))

    left = known.since(TODAY + timedelta(days=first))

    assert left.merged() == merge(config for day, config in merges if day >= first)
    assert not left.config.records
