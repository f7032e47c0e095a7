"""Which results need a blob, and the way to it."""

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Digest, Link, Record, Result
from maintainer.cacheconfig.needs import layers_to, needs_of, records_to
from maintainer.cacheconfig.timestamps import Nanoseconds
from tests.snapshots import an_index, blob
from tests.worlds import BLOBS, any_index


def _needed(config: CacheConfig, result: Result) -> set[Digest]:
    return {layer.blob for top in result.layers for layer in layers_to(config, top)}


@given(any_index(), st.sampled_from(BLOBS))
def test_a_result_needs_its_layers_and_all_below_them(config: CacheConfig, wanted: Digest) -> None:
    found = [(need.record, need.result) for need in needs_of(config, wanted)]

    assert found == [
        (position, result)
        for position, record in enumerate(config.records)
        for result in record.results
        if wanted in _needed(config, result)
    ]


def test_the_layer_that_is_told_is_the_one_nearest_to_the_blob() -> None:
    config = an_index(("base", "lib", "app"))
    chain = Result((2, 1), with_parents=False, created_at=Nanoseconds(0))
    config = CacheConfig(config.layers, (Record("key", (chain,), ()),))

    (need,) = needs_of(config, blob("base"))

    assert (need.layer, need.steps) == (1, 1)
    assert [layer.blob for layer in layers_to(config, need.layer)] == [blob("base"), blob("lib")]


def test_the_way_to_a_record_begins_with_a_step_that_has_no_input() -> None:
    inputs = ((), ((Link(0, ""),),), ((Link(1, ""), Link(0, "")), (Link(1, ""),)))
    records = tuple(Record(name, (), links) for name, links in zip("abc", inputs, strict=True))

    told = [[one.digest for one in records_to(CacheConfig((), records), at)] for at in range(3)]

    assert told == [["a"], ["a", "b"], ["a", "c"]]
