"""A set of numbers that takes little memory knows exactly what was added to it."""

from hypothesis import given
from hypothesis import strategies as st

from maintainer.spool import NumberSet

# Few different ones, so that some repeat, and those of one part, which share a place.
NUMBERS = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 9).map(lambda one: one * 1_024))


@given(NUMBERS)
def test_a_number_is_new_once(numbers: list[int]) -> None:
    known, found = set[int](), NumberSet()

    for number in numbers:
        assert found.add(number) is (number not in known)
        known.add(number)
