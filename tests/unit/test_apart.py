"""The stamps of indexes: what a builder imports beside an index is not hidden by it."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    NO_REF,
    CacheConfig,
    Digest,
    IndexId,
    Link,
    Record,
    Ref,
    Scope,
    Sink,
    decode_whole,
    encode,
    merge,
    prune,
    stamp_of,
    with_sink,
)
from maintainer.cacheconfig.apart import ANY_STAMP, set_apart, without_stamps
from maintainer.cacheconfig.keys import is_digest
from tests.importer import Imported, import_index
from tests.recorded import recorded_indexes
from tests.worlds import BLOBS, any_index


def _import(config: CacheConfig) -> Imported:
    return import_index(encode(config), Random(0))


def _ids(config: CacheConfig) -> set[str]:
    return _import(config).step_ids()


def _step(digest: str, *sources: int, selector: str = "") -> Record:
    ways = tuple(Link(source, selector) for source in sources)
    return Record(digest, (), (ways,) if ways else ())


MAIN, BRANCH, MERGE = (
    stamp_of(IndexId(Ref("refs/heads/main"), Scope(scope)), "github:octo/app")
    for scope in ("main", "branch", "merge")
)


@given(any_index(), st.sampled_from([None, Sink.REWRITE]))
def test_no_step_has_the_same_id_in_a_merge_and_in_another_index(
    config: CacheConfig, sink: Sink | None
) -> None:
    merged = merge([config])
    other = with_sink(merged, sink, MAIN) if sink else merged

    assert not _ids(with_sink(merged, Sink.MERGE, MERGE)) & _ids(other)


@given(any_index())
def test_no_step_has_the_same_id_in_two_indexes_that_runs_have_written(config: CacheConfig) -> None:
    merged = merge([config])
    first, second = (_ids(with_sink(merged, stamp=stamp)) for stamp in (MAIN, BRANCH))

    # If nothing builds on anything, both have the same sink, which no builder asks for.
    assert not first & second or not any(record.inputs for record in merged.records)


def test_without_a_stamp_a_merge_has_the_ids_of_what_it_holds() -> None:
    contents = [decode_whole(content).config for content in recorded_indexes().values()]
    merged = merge(contents)

    shared = [_ids(one) & _ids(contents[0]) for one in (merged, with_sink(merged))]

    assert [bool(ids) for ids in shared] == [True, False]


def test_the_stamp_of_an_index_depends_on_cache_ref_and_scope_alone_and_is_no_digest() -> None:
    indexes = [
        (IndexId(ref, Scope(scope)), cache)
        for ref in (NO_REF, Ref("a"))
        for scope in ("a", "b")
        for cache in ("local:/a", "local:/b")
    ]

    stamps = [stamp_of(*index) for index in indexes]

    assert stamps == [stamp_of(*index) for index in indexes]
    assert len({*stamps, ANY_STAMP}) == 9
    assert {len(stamp) for stamp in stamps} == {len(ANY_STAMP)}
    assert not any(map(is_digest, stamps))


@given(any_index())
def test_the_stamp_is_gone_once_an_index_is_read(config: CacheConfig) -> None:
    merged = merge([config])

    assert without_stamps(set_apart(merged, MERGE)) == merged
    assert decode_whole(encode(set_apart(merged, MERGE))).config == merged


@given(any_index())
def test_the_stamp_unites_no_steps(config: CacheConfig) -> None:
    merged = merge([config])
    stamped = set_apart(merged, MERGE)

    assert len(_import(stamped).items) == len(stamped.records)


def test_steps_of_the_same_digest_on_different_bases_stay_two() -> None:
    bases = Record("base", (), ()), Record("other base", (), ())
    config = CacheConfig((), (*bases, _step("run", 0), _step("run", 1), _step("next", 2)))

    stamped = set_apart(config, MERGE)

    links = [record.inputs[0][-1] for record in stamped.records[2:4]]
    assert [stamped.records[link.source].digest for link in links] == [MERGE, MERGE]
    assert links[0].selector != links[1].selector
    assert stamped.records[4] == config.records[4]
    assert len(_import(stamped).items) == 6


def test_the_link_to_a_stamp_is_the_same_for_the_same_step_and_for_no_other() -> None:
    """A builder unites what has the same links: if caches share a stamp, only the same step."""
    few = CacheConfig((), (Record("base", (), ()), _step("run", 0)))
    more = CacheConfig((), (Record("a", (), ()), Record("base", (), ()), _step("run", 1)))
    others = (_step("run", 0, selector="/"), _step("walk", 0))

    base = Record("base", (), ())
    stamps = {_selector(CacheConfig((), (base, one)), 1) for one in others}

    known = {_selector(few, 1), _selector(more, 2)}
    assert len(known) == 1
    assert len(stamps | known) == 3


def _selector(config: CacheConfig, position: int) -> str:
    """Return the selector of the link from a record to the stamp."""
    return set_apart(config, MERGE).records[position].inputs[0][-1].selector


def test_an_index_in_which_nothing_builds_on_anything_needs_no_stamp() -> None:
    config = CacheConfig((), (Record("a", (), ()), Record("b", (), ())))

    assert set_apart(config, MERGE) == config


@given(any_index(), st.sets(st.integers(0, 9)), st.frozensets(st.sampled_from(BLOBS)))
def test_no_forged_stamp_makes_a_run_write_what_the_next_one_reads_otherwise(
    config: CacheConfig, forged: set[int], gone: frozenset[Digest]
) -> None:
    records = tuple(
        Record(f"maintainer:{at % 3}", one.results, one.inputs) if at in forged else one
        for at, one in enumerate(config.records)
    )
    read = decode_whole(encode(CacheConfig(config.layers, records))).config
    merged = prune(merge([read]), frozenset(BLOBS) - gone)

    assert not any(record.digest.startswith("maintainer:") for record in merged.records)
    assert decode_whole(encode(with_sink(merged))).config == merged


def test_of_forged_stamps_and_what_only_they_lead_to_nothing_is_left() -> None:
    base, other = Record("base", (), ()), _step("other", 0)
    stamps = _step(MERGE, 0), Record(MAIN, (), ()), _step(MAIN, 2, 3)
    behind = _step("run", 2, 3), _step("next", 5), _step("twice", 1, 6)

    left = without_stamps(CacheConfig((), (base, other, *stamps, *behind)))

    assert left.records == (base, other, _step("twice", 1))


@pytest.mark.parametrize("sink", Sink)
def test_a_stamp_that_only_a_sink_links_to_leaves_nothing(sink: Sink) -> None:
    forged = CacheConfig((), (Record(MERGE, (), ()), _step(sink, 0)))

    assert decode_whole(encode(forged)) == (CacheConfig(), sink)


def test_of_stamps_that_a_builder_has_exported_nothing_is_left() -> None:
    """An exporter that checks no digests exports those of all indexes that it imported."""
    stamps = Record(MERGE, (), ()), Record(MAIN, (), ())
    records = (*stamps, Record("base", (), ()), _step("a", 0, 1, 2), stamps[0])

    left = without_stamps(CacheConfig((), records))

    assert left.records == (Record("base", (), ()), _step("a", 0))
