"""The algebra of pruning."""

from hypothesis import assume, given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    CacheConfig,
    Digest,
    Link,
    Record,
    Result,
    decode,
    encode,
    merge,
    prune,
)
from maintainer.cacheconfig.timestamps import Nanoseconds
from tests.worlds import (
    BLOBS,
    any_index,
    builds_of_one_repository,
    describe,
    leads_to,
    meaning,
    slow_prune,
)

_live = st.frozensets(st.sampled_from(BLOBS))


def _layer_result(layer: int, created_at: int = 0) -> Result:
    return Result((layer,), with_parents=True, created_at=Nanoseconds(created_at))


def _links(config: CacheConfig) -> set[tuple[str, int, str, str]]:
    return {
        (record.digest, position, config.records[link.source].digest, link.selector)
        for record in config.records
        for position, links in enumerate(record.inputs)
        for link in links
    }


@given(any_index(), _live)
def test_pruning_does_what_the_three_rules_say(config: CacheConfig, live: set[Digest]) -> None:
    merged = merge([config])
    for record in merged.records:
        assume(len({result.created_at for result in record.results}) == len(record.results))

    assert meaning(prune(merged, live)) == meaning(slow_prune(merged, live))


@given(builds_of_one_repository(), _live)
def test_pruning_commutes_with_merging_in_what_every_key_leads_to(
    builds: list[CacheConfig], live: set[Digest]
) -> None:
    merged_first = prune(merge(builds), live)
    pruned_first = prune(merge([prune(build, live) for build in builds]), live)

    # A build whose results are all dead may still know another way to a key: merging first keeps
    # that way, so the links may be more, but what they lead to is the same.
    assert leads_to(pruned_first) == leads_to(merged_first)
    assert _links(pruned_first) <= _links(merged_first)


@given(any_index(loops=False), any_index(loops=False), _live)
def test_merging_before_pruning_never_loses_what_pruning_first_would_keep(
    a: CacheConfig, b: CacheConfig, live: set[Digest]
) -> None:
    merged_first = prune(merge([a, b]), live)
    pruned_first = merge([prune(a, live), prune(b, live)])

    together = prune(merge([merged_first, pruned_first]), live)

    assert meaning(together) == meaning(merged_first)


@given(any_index(), _live, _live)
def test_pruning_in_steps_keeps_no_more_than_pruning_at_once(
    config: CacheConfig, first: set[Digest], second: set[Digest]
) -> None:
    at_once = prune(config, first & second)

    assert prune(at_once, first & second) == at_once
    assert prune(prune(config, first), second).blobs <= first & second


@given(any_index(), _live)
def test_what_is_left_passes_the_importers_rules_and_names_live_blobs_only(
    config: CacheConfig, live: set[Digest]
) -> None:
    left = prune(merge([config]), live)

    assert decode(encode(left)) == left
    assert left.blobs <= live


def test_nothing_is_left_when_no_blob_is_and_that_is_a_valid_index() -> None:
    config = CacheConfig((describe(BLOBS[0], -1),), (Record("key", (_layer_result(0),), ()),))

    assert encode(prune(config, frozenset())) == b"{}"
    assert decode(b"{}") == CacheConfig()


def test_a_record_without_a_result_stays_while_it_is_the_way_to_one() -> None:
    config = CacheConfig(
        (describe(BLOBS[0], -1),),
        (
            Record("way", (), ()),
            Record("goal", (_layer_result(0),), ((Link(0, ""),),)),
            Record("dead end", (), ((Link(0, ""),),)),
        ),
    )

    assert [r.digest for r in prune(config, {BLOBS[0]}).records] == ["goal", "way"]


def test_a_result_dies_with_any_parent_of_its_layer() -> None:
    config = CacheConfig(
        (describe(BLOBS[0], -1), describe(BLOBS[1], 0)),
        (Record("key", (_layer_result(1),), ()),),
    )

    assert prune(config, {BLOBS[1]}) == CacheConfig()
    assert prune(config, set(BLOBS)).result_count == 1


def test_the_newest_live_result_is_kept_to_the_nanosecond() -> None:
    config = CacheConfig(
        (describe(BLOBS[0], -1), describe(BLOBS[1], -1)),
        (Record("key", (_layer_result(0, 1), _layer_result(1, 2)), ()),),
    )

    assert prune(config, set(BLOBS)).blobs == {BLOBS[1]}
    assert prune(config, {BLOBS[0]}).blobs == {BLOBS[0]}
