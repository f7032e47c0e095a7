"""What is expected until the next run, and how much stays free for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.model.limits import KeepFree
from maintainer.policy.headroom import INTERVALS, forecast


@given(st.lists(st.integers(0, 100), min_size=10, max_size=2 * INTERVALS))
def test_what_is_expected_was_enough_nine_times_out_of_ten(arrived: list[int]) -> None:
    expected, last = forecast(arrived), arrived[-INTERVALS:]

    assert expected is not None
    assert expected in last
    assert sum(one <= expected for one in last) >= 0.9 * len(last)
    assert sum(one < expected for one in last) < 0.9 * len(last)


@given(st.lists(st.integers(0, 100), min_size=9, max_size=INTERVALS))
def test_one_interval_alone_decides_nothing(arrived: list[int]) -> None:
    assert forecast([10**9, *arrived]) == forecast([100, *arrived])


@pytest.mark.parametrize("arrived", [[9, 9, 9, 9, *[1] * 27], [*[1] * 27, 9, 9, 9]])
def test_of_a_long_past_the_last_thirty_intervals_count(arrived: list[int]) -> None:
    assert forecast(arrived) == 1


@pytest.mark.parametrize("arrived", [[], [100], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_a_short_past_tells_nothing(arrived: list[int]) -> None:
    assert forecast(arrived) is None


@pytest.mark.parametrize(
    ("keep_free", "expected", "free"),
    [
        (KeepFree(share=0.15), 0, 150),
        (KeepFree(share=0.15), 149, 150),
        (KeepFree(share=0.15), 200, 200),
        (KeepFree(size=100), 200, 200),
        (KeepFree(size=100), 2_000, 500),
        (KeepFree(size=600), 2_000, 600),
    ],
)
def test_what_is_expected_stays_free_up_to_half_of_the_quota(
    keep_free: KeepFree, expected: int, free: int
) -> None:
    assert keep_free.of(1_000, expected) == free
    assert keep_free.limit(1_000, expected) == 1_000 - free


def test_a_limit_is_never_negative() -> None:
    assert KeepFree(size=11).limit(10) == 0
