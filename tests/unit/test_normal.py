"""Normal form, where what recorded builds and random indexes show is not all."""

from random import Random

import pytest

from maintainer.cacheconfig import CacheConfig, Link, Record, decode, encode
from maintainer.cacheconfig.normal import normalize


def _ladder(steps: int, random: Random) -> CacheConfig:
    """Return two chains of records of one digest on different bases, laid out at random.

    How a record compares with its twin on the other chain follows from the two below, so each round
    of sorting settles one step only.
    """
    records: list[tuple[str, int | None]] = [("a", None), ("b", None)]
    records += [("x", number) for number in range(2 * steps)]
    places = list(range(len(records)))
    random.shuffle(places)
    laid_out = [Record("", (), ())] * len(records)
    for (digest, below), place in zip(records, places, strict=True):
        inputs = () if below is None else ((Link(places[below], ""),),)
        laid_out[place] = Record(digest, (), inputs)
    return CacheConfig((), tuple(laid_out))


@pytest.mark.parametrize("steps", [3, 500])
def test_even_a_hostile_index_has_one_normal_form_and_it_is_valid(steps: int) -> None:
    normal = normalize(_ladder(steps, Random(0)))

    assert normalize(_ladder(steps, Random(1))) == normal
    assert normalize(normal) == normal
    assert decode(encode(normal)) == normal


@pytest.mark.parametrize("steps", [1, 63, 64])
def test_twins_on_twins_are_sorted_exactly_up_to_a_depth_that_no_build_has(steps: int) -> None:
    records = normalize(_ladder(steps, Random(0))).records

    assert list(records) == sorted(records, key=lambda x: (x.digest, x.inputs))


def test_twins_that_repeat_links_differently_have_one_normal_form() -> None:
    once, twice = ((Link(0, ""),),), ((Link(0, ""), Link(0, "")),)
    base, two = Record("base", (), ()), [Record("x", (), once), Record("x", (), twice)]

    normal = normalize(CacheConfig((), (base, *two)))

    assert normalize(CacheConfig((), (base, *reversed(two)))) == normal
    assert [record.inputs for record in normal.records[1:]] == [once, once]
