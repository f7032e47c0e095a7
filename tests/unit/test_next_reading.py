"""When what builders read is read again: in each period once, however runs fall into it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from maintainer.model.checks import next_reading

_moments = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_periods = st.timedeltas(timedelta(seconds=1), timedelta(days=90))


@given(_moments, _periods)
def test_the_next_reading_is_later_and_at_most_a_period_away(
    after: datetime, every: timedelta
) -> None:
    assert after < next_reading(after, every) <= after + every


@given(_moments, _periods)
def test_all_moments_of_a_period_have_the_same_next_reading(
    after: datetime, every: timedelta
) -> None:
    ends = next_reading(after, every)

    assert next_reading(ends - timedelta(microseconds=1), every) == ends
    assert next_reading(ends, every) == ends + every
