"""A run lists a bucket or container in little more time and memory than its SDK needs alone."""

import pytest

from benchmarks.many_objects import measure


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kind", ["s3", "azblob"])
def test_a_list_takes_at_most_half_as_much_time_again_as_the_sdk_alone(kind: str) -> None:
    measured = measure(kind, 100_000)

    (floor, least), (seconds, size) = measured["sdk"], measured["run"]
    assert seconds < 1.5 * floor
    assert size < least + 50 * 10**6
