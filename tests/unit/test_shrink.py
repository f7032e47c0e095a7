"""Shrinking: what is dropped, what is kept, and that it is the same every time."""

from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    CacheConfig,
    Digest,
    Layer,
    Link,
    Record,
    Result,
    decode,
    encode,
    merge,
    oci,
    prune,
)
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.oci import IMPORT_LIMIT, encode_oci, fits_importers, importers_size
from maintainer.cacheconfig.shrink import (
    Export,
    ResultId,
    built_since,
    last_uses,
    results_of,
    shrink,
)
from maintainer.cacheconfig.timestamps import Nanoseconds
from tests.worlds import BLOBS, any_index, leads_to

_LIMITS = st.integers(min_value=0, max_value=4_000)
_Room = Callable[[CacheConfig], float]


def _in_bytes(limit: int) -> _Room:
    return lambda config: len(encode(config)) / (limit or 0.5)


def _at_most(results: int) -> _Room:
    return lambda config: config.result_count / (results or 0.5)


def _of_importers(config: CacheConfig) -> float:
    return importers_size(config) / IMPORT_LIMIT


def _ids(config: CacheConfig) -> list[ResultId]:
    return list(last_uses(map(Export, [config])))


def _normal(config: CacheConfig) -> CacheConfig:
    return prune(merge([config]), config.blobs)


@given(any_index(), _LIMITS)
def test_what_is_left_fits_or_is_empty(config: CacheConfig, limit: int) -> None:
    left = shrink(_normal(config), _in_bytes(limit))

    assert left == CacheConfig() or len(encode(left)) <= limit


@given(any_index(), _LIMITS)
def test_what_is_left_is_valid_and_leads_nowhere_else(config: CacheConfig, limit: int) -> None:
    normal = _normal(config)

    left = shrink(normal, _in_bytes(limit))

    assert decode(encode(left)) == left
    before = leads_to(normal)
    assert all(chains <= before[digest] for digest, chains in leads_to(left).items())


@given(any_index(), _LIMITS)
def test_shrinking_again_changes_nothing(config: CacheConfig, limit: int) -> None:
    once = shrink(_normal(config), _in_bytes(limit))

    assert shrink(once, _in_bytes(limit)) == once


@given(any_index())
def test_what_fits_stays_as_it_is(config: CacheConfig) -> None:
    assert shrink(config, lambda _: 1) is config


@given(any_index(), st.integers(min_value=0, max_value=6))
def test_as_many_results_are_kept_as_fit(config: CacheConfig, results: int) -> None:
    normal = _normal(config)

    left = shrink(normal, _at_most(results))

    assert left.result_count == min(results, normal.result_count)


@given(any_index(), st.integers(min_value=0, max_value=6), st.data())
def test_no_result_is_kept_that_was_used_before_one_that_is_dropped(
    config: CacheConfig, results: int, data: st.DataObject
) -> None:
    normal = _normal(config)
    times = st.integers(min_value=0, max_value=3).map(Nanoseconds)
    uses = {name: data.draw(times) for name in _ids(normal)}

    left = shrink(normal, _at_most(results), uses)

    kept = _ids(left)
    dropped = [name for name in _ids(normal) if name not in kept]
    assert all(uses[one] >= uses[other] for one in kept for other in dropped)


@pytest.mark.parametrize("last", [1, 500, 999])
def test_few_tries_are_enough_however_an_index_grows(last: int) -> None:
    tries: list[int] = []

    def leaps(config: CacheConfig) -> float:
        tries.append(config.result_count)
        return 1e9 if config.result_count > last else config.result_count / 1e9

    left = shrink(_chain(1_000), leaps)

    assert left.result_count == last
    assert len(tries) <= 1 + 4 + 10


def test_a_record_without_a_result_stays_if_it_is_the_way_to_one() -> None:
    chain = _chain(3)
    uses = {name: Nanoseconds(number) for number, name in enumerate(_ids(chain))}

    left = shrink(chain, _at_most(1), uses)

    assert [bool(record.results) for record in left.records] == [False, False, True]
    assert len(left.layers) == 3


def test_of_one_build_the_last_steps_go_first_for_they_need_the_keys_of_all_others() -> None:
    left = shrink(_chain(9), lambda one: len(one.records) / 4)

    assert left == _normal(_chain(4))


def _chain(length: int, name: str = "", at: int = 0) -> CacheConfig:
    """Return the export of a build of some steps; the later a step, the newer its result."""
    layers = tuple(
        Layer(BLOBS[n % 6], n - 1, Digest(BLOBS[0]), "layer", 10, Nanoseconds(at + n))
        for n in range(length)
    )
    return CacheConfig(
        layers,
        tuple(
            Record(
                f"{name} {n:06}",
                (Result((n,), with_parents=True, created_at=Nanoseconds(at + n)),),
                ((Link(n - 1, ""),),) if n else (),
            )
            for n in range(length)
        ),
    )


def test_what_a_later_build_used_is_kept_although_it_was_made_long_ago() -> None:
    base = _chain(1, "base")
    later = merge([base, _chain(1, "new", at=100)])
    between = _chain(1, "between", at=50)

    left = shrink(
        merge([between, later]),
        _at_most(2),
        last_uses(map(Export, [between, later])),
    )

    assert {record.digest for record in left.records} == {"base 000000", "new 000000"}


def test_of_what_no_export_is_known_only_that_stays_which_is_younger_than_other_builds() -> None:
    export = _chain(2, "export", at=50)
    unknown = merge([_chain(2, "older", at=40), _chain(2, "younger", at=60)])
    everything = merge([export, unknown])

    left = shrink(everything, _at_most(4), last_uses(map(Export, [export])))

    assert left == _normal(merge([export, _chain(2, "younger", at=60)]))


def test_an_index_that_is_too_large_for_importers_is_made_to_fit_and_filled() -> None:
    one = _wide(1_200)
    assert not fits_importers(one)

    left = shrink(one, _of_importers)

    encoded = encode_oci(left)
    assert len(encoded.manifest) <= IMPORT_LIMIT
    assert len(encoded.config) <= IMPORT_LIMIT
    assert max(len(encoded.manifest), len(encoded.config)) > 0.99 * IMPORT_LIMIT


def _wide(records: int) -> CacheConfig:
    """Return an index of many records on a layer each, whose media types have many characters."""
    layers = tuple(
        Layer(
            Digest(f"sha256:{n:064x}"), NO_PARENT, Digest(BLOBS[0]), 1_000 * "x", 10, Nanoseconds(n)
        )
        for n in range(records)
    )
    return CacheConfig(
        layers,
        tuple(
            Record(
                f"sha256:{n:064x}",
                (Result((n,), with_parents=True, created_at=Nanoseconds(n)),),
                (),
            )
            for n in range(records)
        ),
    )


@given(any_index(), st.text(max_size=40), st.integers(min_value=1_000, max_value=20_000))
def test_what_is_said_to_fit_does_fit_whatever_its_names_are(
    config: CacheConfig, name: str, limit: int
) -> None:
    records = tuple(
        Record(f"{record.digest}{name}", record.results, record.inputs) for record in config.records
    )
    named = merge([CacheConfig(config.layers, records)])

    with patch.object(oci, "IMPORT_LIMIT", limit):
        fits = fits_importers(named)

    encoded = encode_oci(named)
    size = max(len(encoded.config), len(encoded.manifest))
    assert size <= limit or not fits
    assert fits or size + 1_024 > limit


def test_a_result_is_as_young_as_the_youngest_that_builds_on_it() -> None:
    chain, alone = _chain(4, at=10), _chain(2, "alone", at=1)

    left = built_since(merge([chain, alone]), Nanoseconds(13))

    assert left == _normal(chain)
    assert not built_since(left, Nanoseconds(14)).records


@given(any_index(), st.integers(min_value=0, max_value=2**62).map(Nanoseconds))
def test_what_builds_have_made_since_stays_with_all_that_it_stands_on(
    config: CacheConfig, first: Nanoseconds
) -> None:
    normal = _normal(config)

    left = built_since(normal, first)

    young = {name for name, _, result, _ in results_of(normal) if result.created_at >= first}
    assert young <= {name for name, _, _, _ in results_of(left)}
    assert built_since(left, first) == left
