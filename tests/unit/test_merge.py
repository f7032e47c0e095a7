"""The algebra of merging."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    CacheConfig,
    Link,
    Record,
    Result,
    count_results,
    decode,
    encode,
    merge,
)
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.timestamps import Nanoseconds
from tests.worlds import BLOBS, any_index, describe, meaning

EARLY, LATE = Nanoseconds(1), Nanoseconds(2)


def _record(digest: str, *inputs: list[Link], layer: int | None = None) -> Record:
    results = () if layer is None else (Result((layer,), with_parents=True, created_at=EARLY),)
    return Record(digest, results, tuple(tuple(links) for links in inputs))


@given(any_index())
def test_merging_an_index_with_itself_changes_nothing(config: CacheConfig) -> None:
    once = merge([config])

    assert merge([config, config]) == once
    assert merge([once]) == once


@given(st.lists(any_index(), max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_merging_does_not_matter(configs: list[CacheConfig], random: Random) -> None:
    shuffled = list(configs)
    random.shuffle(shuffled)

    assert encode(merge(shuffled)) == encode(merge(configs))


@given(any_index(loops=False), any_index(loops=False), any_index(loops=False))
def test_the_grouping_of_merging_does_not_matter(
    a: CacheConfig, b: CacheConfig, c: CacheConfig
) -> None:
    together = merge([a, b, c])

    assert merge([merge([a, b]), c]) == together
    assert merge([a, merge([b, c])]) == together


@given(st.lists(any_index(), max_size=4))
def test_the_results_of_a_merge_are_counted_without_it(configs: list[CacheConfig]) -> None:
    merged = [merge([config]) for config in configs]

    assert count_results(merged) == merge(configs).result_count
    assert count_results(configs) == merge(configs).result_count


@given(st.lists(any_index(), max_size=3))
def test_a_merge_passes_the_importers_rules_and_has_no_twins(configs: list[CacheConfig]) -> None:
    merged = merge(configs)

    assert decode(encode(merged)) == merged
    meaning(merged)


@given(any_index(), st.randoms(use_true_random=False))
def test_the_same_meaning_gives_the_same_bytes_however_it_is_laid_out(
    config: CacheConfig, random: Random
) -> None:
    to = list(range(len(config.records)))
    random.shuffle(to)
    moved = list(config.records)
    for old, record in enumerate(config.records):
        inputs = tuple(tuple(Link(to[x.source], x.selector) for x in i) for i in record.inputs)
        moved[to[old]] = Record(record.digest, record.results, inputs)

    assert encode(merge([CacheConfig(config.layers, tuple(moved))])) == encode(merge([config]))


@given(any_index())
def test_normal_form_is_sorted_as_documented(config: CacheConfig) -> None:
    merged = merge([config])

    assert list(merged.layers) == sorted(merged.layers, key=lambda x: (x.blob, x.parent))
    assert list(merged.records) == sorted(merged.records, key=lambda x: (x.digest, x.inputs))
    for record in merged.records:
        assert all(list(links) == sorted(set(links)) for links in record.inputs)


def test_records_that_share_a_link_for_every_input_become_one_and_so_on_upwards() -> None:
    first = CacheConfig(
        records=(
            _record("base"),
            _record("files"),
            _record("copy", [Link(0, "")], [Link(1, "/a")]),
            _record("run", [Link(2, "")]),
        )
    )
    second = CacheConfig(
        records=(
            _record("base"),
            _record("other base"),
            _record("files"),
            _record("copy", [Link(1, ""), Link(0, "")], [Link(2, "/a"), Link(2, "/b")]),
            _record("run", [Link(3, "")]),
        )
    )

    merged = merge([first, second])

    assert [record.digest for record in merged.records] == [
        "base",
        "copy",
        "files",
        "other base",
        "run",
    ]
    assert merged.records[1].inputs == (
        (Link(0, ""), Link(3, "")),
        (Link(2, "/a"), Link(2, "/b")),
    )


def test_records_that_differ_in_one_input_stay_two() -> None:
    a = CacheConfig(
        records=(_record("base"), _record("x"), _record("copy", [Link(0, "")], [Link(1, "")]))
    )
    b = CacheConfig(
        records=(_record("base"), _record("y"), _record("copy", [Link(0, "")], [Link(1, "")]))
    )

    assert [record.digest for record in merge([a, b]).records].count("copy") == 2


def test_a_third_index_can_show_that_two_records_are_one() -> None:
    def run_on(*bases: str) -> CacheConfig:
        links = [Link(number, "") for number in range(len(bases))]
        return CacheConfig(records=(*map(_record, bases), _record("run", links)))

    merged = merge([run_on("a"), run_on("b"), run_on("a", "b")])

    assert [record.digest for record in merged.records] == ["a", "b", "run"]


def test_records_that_turn_out_to_be_one_keep_the_results_of_both() -> None:
    def run_on(*bases: str, blob: int) -> CacheConfig:
        links = [Link(number, "") for number in range(len(bases))]
        records = (*map(_record, bases), _record("run", links, layer=0))
        return CacheConfig((describe(BLOBS[blob], NO_PARENT),), records)

    merged = merge([run_on("a", blob=0), run_on("b", blob=1), run_on("a", "b", blob=2)])

    assert len(merged.records[-1].results) == len(merged.layers) == 3


def test_a_link_that_would_close_a_loop_is_left_out() -> None:
    # The third record turns out to be the first one, which it builds on.
    config = CacheConfig(
        records=(
            _record("base"),
            _record("step", [Link(0, "")]),
            _record("between", [Link(1, "")]),
            _record("step", [Link(0, ""), Link(2, "")]),
        )
    )

    merged = merge([config])

    assert [record.digest for record in merged.records] == ["base", "between", "step"]
    assert merged.records[1].inputs == ((Link(2, ""),),)
    assert merged.records[2].inputs == ((Link(0, ""),),)


def test_the_same_blob_on_other_parents_is_another_layer() -> None:
    def layers(*blobs: int) -> CacheConfig:
        chain = tuple(describe(BLOBS[blob], at - 1) for at, blob in enumerate(blobs))
        return CacheConfig(chain, (_record(f"key {blobs}", layer=len(blobs) - 1),))

    merged = merge([layers(0, 2), layers(1, 2), layers(0, 2)])

    assert sorted(BLOBS.index(layer.blob) for layer in merged.layers) == [0, 1, 2, 2]


def test_the_newest_description_of_a_blob_is_kept_as_buildkit_does() -> None:
    def described(created_at: Nanoseconds) -> CacheConfig:
        return CacheConfig((describe(BLOBS[0], -1, created_at),), (_record("key", layer=0),))

    assert merge([described(LATE), described(EARLY)]).layers[0].created_at == LATE
