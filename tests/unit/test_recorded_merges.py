"""Merging and pruning agree with a real BuildKit on what it recorded."""

import msgspec
import pytest

from maintainer.cacheconfig import decode, encode, merge, prune
from tests.recorded import CASES, expected, recorded_indexes
from tests.worlds import meaning, slow_prune


@pytest.mark.parametrize("case", CASES)
def test_the_same_keys_lead_to_the_same_chains_and_nothing_else_is_left(case: str) -> None:
    theirs = expected(case)
    indexes = [decode(recorded_indexes()[key]) for key in theirs.indexes]

    ours = prune(merge(indexes), theirs.live_blobs)

    assert meaning(ours) == meaning(slow_prune(decode(bytes(theirs.merged)), theirs.live_blobs))
    assert ours.blobs <= theirs.live_blobs


@pytest.mark.parametrize("case", CASES)
def test_merging_a_merge_of_buildkit_gives_our_bytes(case: str) -> None:
    theirs = expected(case)
    indexes = [decode(recorded_indexes()[key]) for key in theirs.indexes]

    ours = encode(prune(merge(indexes), theirs.live_blobs))

    assert ours == encode(prune(merge([decode(bytes(theirs.merged))]), theirs.live_blobs))


def test_all_six_cases_are_there() -> None:
    assert len(CASES) == 6


@pytest.mark.parametrize("key", ["index-buildkit-1-f921bd05#1", "index-web-1-f921bd05#14"])
def test_what_buildkit_wrote_means_the_same_after_decoding_and_encoding(key: str) -> None:
    content = recorded_indexes()[key]

    assert msgspec.json.decode(encode(decode(content))) == msgspec.json.decode(content)
