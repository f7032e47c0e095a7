"""The mark of a merge: what a builder imports beside the merge is not hidden by it."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    CacheConfig,
    Link,
    Record,
    Sink,
    decode_whole,
    encode,
    merge,
    with_sink,
)
from maintainer.cacheconfig.apart import MARK, set_apart, without_mark
from maintainer.cacheconfig.normal import normalize
from tests.importer import Imported, import_index
from tests.recorded import recorded_indexes
from tests.worlds import any_index


def _import(config: CacheConfig) -> Imported:
    return import_index(encode(config), Random(0))


def _ids(imported: Imported) -> set[str]:
    """Return the IDs of what has inputs; a record without any has the same one everywhere."""
    ids = imported.ids()
    return {ids[item.number] for item in imported.items.values() if item.links}


def _step(digest: str, *sources: int, selector: str = "") -> Record:
    ways = tuple(Link(source, selector) for source in sources)
    return Record(digest, (), (ways,) if ways else ())


@given(any_index(), st.sampled_from([None, Sink.REWRITE]))
def test_no_step_has_the_same_id_in_a_merge_and_in_another_index(
    config: CacheConfig, sink: Sink | None
) -> None:
    merged = merge([config])
    other = with_sink(merged, sink) if sink else merged

    assert not _ids(_import(with_sink(merged, Sink.MERGE))) & _ids(_import(other))


def test_without_the_mark_a_merge_has_the_ids_of_what_it_holds() -> None:
    contents = [decode_whole(content).config for content in recorded_indexes().values()]
    merged = merge(contents)

    shared = [_ids(_import(with_sink(merged, sink))) & _ids(_import(contents[0])) for sink in Sink]

    assert [bool(ids) for ids in shared] == [True, False]


@given(any_index())
def test_the_mark_is_gone_once_an_index_is_read(config: CacheConfig) -> None:
    merged = merge([config])

    assert without_mark(set_apart(merged)) == merged
    assert decode_whole(encode(set_apart(merged))).config == merged


@given(any_index())
def test_the_mark_unites_no_steps(config: CacheConfig) -> None:
    merged = merge([config])
    marked = set_apart(merged)

    assert len(_import(marked).items) == len(marked.records)


def test_steps_of_the_same_digest_on_different_bases_stay_two() -> None:
    bases = Record("base", (), ()), Record("other base", (), ())
    config = CacheConfig((), (*bases, _step("run", 0), _step("run", 1), _step("next", 2)))

    marked = set_apart(config)

    links = [record.inputs[0][-1] for record in marked.records[2:4]]
    assert [marked.records[link.source].digest for link in links] == [MARK, MARK]
    assert links[0].selector != links[1].selector
    assert marked.records[4] == config.records[4]
    assert len(_import(marked).items) == 6


def test_the_mark_of_a_step_is_the_same_in_every_merge() -> None:
    """A builder that imports two merges unites what has the same mark: only ever the same step."""
    few = CacheConfig((), (Record("base", (), ()), _step("run", 0)))
    more = CacheConfig((), (Record("a", (), ()), Record("base", (), ()), _step("run", 1)))
    others = (_step("run", 0, selector="/"), _step("walk", 0))

    marks = {
        set_apart(CacheConfig((), (Record("base", (), ()), one))).records[1].inputs[0][-1].selector
        for one in others
    }

    known = {set_apart(one).records[-2].inputs[0][-1].selector for one in (few, more)}
    assert len(known) == 1
    assert len(marks | known) == 3


def test_an_index_in_which_nothing_builds_on_anything_needs_no_mark() -> None:
    config = CacheConfig((), (Record("a", (), ()), Record("b", (), ())))

    assert set_apart(config) == config


@pytest.mark.parametrize(
    "records",
    [
        pytest.param((Record(MARK, (), ()), _step("a", 0)), id="the only source of a step"),
        pytest.param(
            (Record("base", (), ()), _step(MARK, 0), _step("a", 0, 1)), id="a mark with an input"
        ),
    ],
)
def test_a_record_with_the_digest_of_the_mark_and_another_place_is_an_ordinary_record(
    records: tuple[Record, ...],
) -> None:
    config = CacheConfig((), (Record("base", (), ()), _step("other", 0), *_moved(records, 2)))

    written = with_sink(config, Sink.MERGE)

    assert without_mark(config) == config
    assert decode_whole(encode(config)).config == normalize(config)
    assert decode_whole(encode(written)) == (normalize(config), Sink.MERGE)


def _moved(records: tuple[Record, ...], by: int) -> list[Record]:
    """Put records behind others."""
    return [
        _step(record.digest, *(link.source + by for links in record.inputs for link in links))
        for record in records
    ]


def test_a_forged_mark_unites_nothing() -> None:
    steps = (Record("base", (), ()), _step("run", 0))
    selector = set_apart(CacheConfig((), steps)).records[1].inputs[0][-1].selector
    forged = CacheConfig((), (Record(MARK, (), ()), _step("run", 0, selector=selector)))
    merged = merge([CacheConfig((), steps), decode_whole(encode(forged)).config])

    written = with_sink(merged, Sink.MERGE)

    assert len(merged.records) == 4
    assert len(_import(written).items) == 5
    assert decode_whole(encode(written)).config == merged


@pytest.mark.parametrize("sink", Sink)
def test_a_mark_that_only_a_sink_links_to_leaves_nothing(sink: Sink) -> None:
    forged = CacheConfig((), (Record(MARK, (), ()), _step(sink, 0)))

    assert decode_whole(encode(forged)) == (CacheConfig(), sink)


def test_of_a_mark_that_a_builder_has_exported_nothing_is_left() -> None:
    """An exporter that checks no digests exports it, too."""
    records = (Record(MARK, (), ()), Record("base", (), ()), _step("a", 0, 1), Record(MARK, (), ()))

    left = without_mark(CacheConfig((), records))

    assert left.records == (Record("base", (), ()), _step("a", 0))
