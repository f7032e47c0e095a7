"""Which layer chains are the largest, and which missing blob cost which results."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Digest, Layer, Record, Result, merge, prune
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.report.chains import find_losses, largest_chains
from tests.worlds import BLOBS, any_index

SIZES = {"base": 1_000, "run": 100, "api": 30, "web": 20, "tiny": 1}
SIZES |= {f"step{number}": number for number in range(10)}


def _config(*chains: str) -> CacheConfig:
    """Return an index of chains such as `base run api`, each of which leads to a result."""
    places: dict[str, int] = {}
    layers: list[Layer] = []
    records = []
    for chain in chains:
        parent = NO_PARENT
        steps = chain.split()
        for length in range(1, len(steps) + 1):
            place = " ".join(steps[:length])
            if place not in places:
                places[place] = len(layers)
                blob = Digest(steps[length - 1])
                layers.append(
                    Layer(blob, parent, Digest("diff"), "tar", SIZES[blob], Nanoseconds(0))
                )
            parent = places[place]
        result = Result((parent,), with_parents=True, created_at=Nanoseconds(0))
        records.append(Record(f"key of {chain}", (result,), ()))
    return CacheConfig(tuple(layers), tuple(records))


def _size(blob: Digest) -> int:
    return SIZES[blob]


def _names(blob: Digest) -> frozenset[str]:
    return frozenset(f"{number} needs {blob}" for number in range(SIZES.get(blob, 0) // 100))


def test_what_stands_on_something_follows_it_and_is_deeper_only_behind_a_branch() -> None:
    rows, left = largest_chains(
        _config("base run api", "base run web", "tiny"), _size, 1_151, _names
    )

    assert [(row.depth, row.digest, row.layers, row.size, row.results) for row in rows] == [
        (0, "base", 2, 1_100, 0),
        (1, "api", 1, 30, 1),
        (1, "web", 1, 20, 1),
        (0, "tiny", 1, 1, 1),
    ]
    assert rows[0].share == 1_100 / 1_151
    assert (rows[0].needed_by[0], len(rows[0].needed_by)) == ("0 needs base", 8)
    assert [row.needed_by_omitted for row in rows] == [2, 0, 0, 0]
    assert left == 0


def test_only_the_largest_chains_are_drawn_and_the_others_are_counted() -> None:
    rows, left = largest_chains(
        _config(*(f"base step{n}" for n in range(10))), _size, 1_000, _names
    )

    assert [row.digest for row in rows] == ["base", "step9", "step8", "step7", "step6", "step5"]
    assert left == 5


def test_a_result_within_a_longer_chain_is_no_chain_of_its_own() -> None:
    rows, left = largest_chains(_config("base", "base run", "base run api"), _size, 1_130, _names)

    assert [(row.layers, row.results) for row in rows] == [(3, 3)]
    assert left == 0


def test_nothing_has_no_tree() -> None:
    assert largest_chains(CacheConfig(), _size, 0, _names) == ((), 0)


def test_a_lost_result_is_put_down_to_the_lowest_missing_blob() -> None:
    config = _config("base", "base run", "base run api", "tiny web")
    live = {Digest(name) for name in ("base", "tiny")}

    lost, blobs = find_losses(config, prune(config, live), live)

    assert lost == 3
    assert [(blob.digest, blob.results, blob.size) for blob in blobs] == [
        ("run", 2, 100),
        ("web", 1, 20),
    ]


@given(any_index(), st.sets(st.sampled_from(BLOBS)))
def test_every_lost_result_has_one_cause_that_is_missing(
    config: CacheConfig, live: set[Digest]
) -> None:
    remembered = merge([config])

    lost, blobs = find_losses(remembered, prune(remembered, live), live)

    assert lost == remembered.result_count - prune(remembered, live).result_count
    assert sum(blob.results for blob in blobs) == lost
    assert not {blob.digest for blob in blobs} & live


@given(any_index())
def test_a_tree_holds_each_layer_once_and_goes_one_branch_deeper_at_a_time(
    config: CacheConfig,
) -> None:
    rows, _ = largest_chains(config, lambda _: 1, len(config.layers) or 1, _names)

    assert sum(row.layers for row in rows) <= len(config.layers)
    depths = [row.depth for row in rows]
    assert all(after <= before + 1 for before, after in pairwise(depths))
    assert not depths or depths[0] == 0
    assert all(0 <= row.share <= 1 for row in rows)
