"""The sink record: whatever we write, an importer finds all of it, in whatever order it walks."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    CacheConfig,
    Link,
    Record,
    Sink,
    decode,
    decode_whole,
    encode,
    loses_links,
    merge,
    prune,
    with_sink,
)
from maintainer.cacheconfig.apart import ANY_STAMP
from maintainer.cacheconfig.normal import normalize
from maintainer.cacheconfig.oci import decode_oci, encode_oci, read_manifest
from maintainer.cacheconfig.sink import leaves
from tests.importer import Imported, import_index
from tests.recorded import recorded_indexes
from tests.worlds import BLOBS, any_index

HOW_IT_WORKS = Path(__file__).parents[2] / "docs" / "how-it-works.md"
SEEDS = range(10)
_ANY = settings(max_examples=2_000, phases=[Phase.generate])
"""Look for any example, not for the smallest one: that would take a minute."""


def _import(config: CacheConfig, seed: int) -> Imported:
    return import_index(encode(config), Random(seed))


def _written(configs: list[CacheConfig]) -> CacheConfig:
    return prune(merge(configs), frozenset(BLOBS))


@given(st.lists(any_index(), max_size=3), st.sampled_from(Sink), st.integers())
def test_an_importer_finds_every_key_and_result_that_we_write(
    configs: list[CacheConfig], sink: Sink, seed: int
) -> None:
    written = _written(configs)

    imported = _import(with_sink(written, sink), seed)

    assert imported.lost_links() == []
    assert imported.found() == set(imported.items)
    keys = [item for item in imported.items.values() if item.digest not in {*Sink, ANY_STAMP}]
    assert len(keys) == len(written.records)
    assert sum(len(item.results) for item in keys) == sum(len(r.results) for r in written.records)


def test_without_the_sink_an_importer_loses_keys() -> None:
    def loses_a_key(config: CacheConfig) -> bool:
        imported = _import(_written([config]), 0)
        return imported.found() != set(imported.items)

    lost = find(any_index(), loses_a_key, settings=_ANY)

    assert loses_links(_written([lost]), None)


@given(any_index(), st.integers())
def test_an_index_that_is_said_to_lose_no_links_loses_none(config: CacheConfig, seed: int) -> None:
    written = _written([config])

    if not loses_links(written, None):
        assert _import(written, seed).lost_links() == []


@given(any_index(), st.sampled_from(Sink))
def test_reading_removes_the_sink_and_says_which_it_was(config: CacheConfig, sink: Sink) -> None:
    written = merge([config])

    read = decode_whole(encode(with_sink(written, sink)))

    assert read == (written, sink if written.records else None)


@given(any_index())
def test_a_directory_is_read_without_its_sink_too(config: CacheConfig) -> None:
    written = merge([config])
    encoded = encode_oci(written)

    manifest = read_manifest(encoded.manifest)

    assert manifest is not None
    assert decode_oci(manifest, encoded.config) == (
        written,
        Sink.REWRITE if written.records else None,
    )


@given(any_index())
def test_an_index_with_a_sink_has_one_leaf(config: CacheConfig) -> None:
    records = with_sink(config).records

    assert leaves(records) == ([len(records) - 1] if records else [])


def _ways(*sources: int, selector: str = "") -> tuple[tuple[Link, ...], ...]:
    return (tuple(Link(source, selector) for source in sources),)


_STEPS = (Record("a", (), ()), Record("b", (), ()))


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(
            (*_STEPS, Record(Sink.REWRITE, (), _ways(0))), id="it leads to one leaf of two"
        ),
        pytest.param((*_STEPS, Record(Sink.REWRITE, (), (*_ways(0), *_ways(1)))), id="two inputs"),
        pytest.param((*_STEPS, Record(Sink.REWRITE, (), ())), id="no input"),
        pytest.param(
            (*_STEPS, Record(Sink.REWRITE, (), _ways(0, 1, selector="/"))), id="a selector"
        ),
        pytest.param(
            (*_STEPS, Record(Sink.REWRITE, (), _ways(0, 1)), Record("c", (), _ways(2))),
            id="linked to",
        ),
        pytest.param(
            (*_STEPS, Record("c", (), _ways(1)), Record(Sink.REWRITE, (), _ways(0, 1, 2))),
            id="it leads to what is no leaf",
        ),
    ],
)
def test_a_record_with_the_digest_of_the_sink_and_another_shape_is_an_ordinary_record(
    records: tuple[Record, ...],
) -> None:
    config = CacheConfig((), records)

    assert decode_whole(encode(config)) == (normalize(config), None)
    assert decode_whole(encode(with_sink(config))) == (normalize(config), Sink.REWRITE)


def test_a_sink_that_has_a_result_is_an_ordinary_record() -> None:
    content = encode(with_sink(CacheConfig((), _STEPS)))
    with_result = content.replace(
        Sink.REWRITE.encode() + b'"',
        Sink.REWRITE.encode() + b'","chains":[{"layers":[],"createdAt":"2026-08-01T00:00:00Z"}]',
    )

    read = decode_whole(with_result)

    assert read.sink is None
    assert len(read.config.records) == 3


def _share_found(config: CacheConfig) -> float:
    """Return the share of keys that importers find, on the average over several walks."""
    found = total = 0
    for seed in SEEDS:
        imported = _import(config, seed)
        found += len(imported.found())
        total += len(imported.items)
    return found / total


def test_importers_find_all_of_the_recorded_history_with_the_sink_and_less_without_it() -> None:
    indexes = [decode(content) for content in recorded_indexes().values()]
    merged = merge(indexes)

    assert _share_found(with_sink(merged)) == 1
    without = _share_found(merged)
    assert without < 0.9
    assert f"finds {100 * without:.1f} % of the keys" in HOW_IT_WORKS.read_text()


def test_each_recorded_export_of_a_build_has_one_leaf() -> None:
    assert {len(leaves(decode(content).records)) for content in recorded_indexes().values()} == {1}
