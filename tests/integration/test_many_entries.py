"""Memory does not grow with the entries of a cache, whether they are old or of the last hours."""

import pytest

from benchmarks.many_entries import measure


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("are_new", [False, True])
def test_a_million_hosted_entries_take_less_than_200_mb_more_than_a_thousand(
    *, are_new: bool
) -> None:
    most = measure(1_000_000, are_new=are_new)
    assert most - measure(1_000, are_new=are_new) < 200 * 10**6


def test_a_few_thousand_entries_take_little_more_memory_than_a_thousand() -> None:
    few = measure(1_000)
    for are_new in (False, True):
        assert measure(6_000, are_new=are_new) - few < 40 * 10**6, f"{are_new=}"
