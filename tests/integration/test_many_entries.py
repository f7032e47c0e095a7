"""Memory does not grow with the entries of a cache."""

import pytest

from benchmarks.many_entries import measure


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_a_million_hosted_entries_take_less_than_200_mb_more_than_a_thousand() -> None:
    assert measure(1_000_000) - measure(1_000) < 200 * 10**6


def test_a_few_thousand_entries_take_little_more_memory_than_a_thousand() -> None:
    assert measure(6_000) - measure(1_000) < 40 * 10**6
