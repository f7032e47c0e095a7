"""Times are read and written as Go does, to the nanosecond."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig.timestamps import (
    Nanoseconds,
    format_time,
    parse_time,
    to_datetime,
    to_nanoseconds,
)

SECOND = 1_000_000_000
FIRST = -62_135_596_800 * SECOND
"""0001-01-01T00:00:00Z, which is Go's zero time."""
LAST = 253_402_300_800 * SECOND - 1
"""9999-12-31T23:59:59.999999999Z."""
_moments = st.integers(FIRST, LAST).map(Nanoseconds)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01Z", SECOND),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("0001-01-01T00:00:00Z", FIRST),
        ("9999-12-31T23:59:59.999999999Z", LAST),
        ("2026-08-01T10:20:30.123456789Z", 1_785_579_630 * SECOND + 123_456_789),
        ("2024-02-29T23:59:59.5Z", 1_709_251_199 * SECOND + 500_000_000),
        ("2024-02-29T23:59:59.000000001Z", 1_709_251_199 * SECOND + 1),
    ],
)
def test_what_go_writes_is_read_and_written_again_to_the_letter(text: str, moment: int) -> None:
    assert parse_time(text) == moment
    assert format_time(Nanoseconds(moment)) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-08-01T12:20:30.25+02:00", "2026-08-01T10:20:30.25Z"),
        ("2026-08-01T04:50:30-05:30", "2026-08-01T10:20:30Z"),
        ("2026-08-01T10:20:30+00:00", "2026-08-01T10:20:30Z"),
        ("2026-08-01T10:20:30-00:00", "2026-08-01T10:20:30Z"),
        ("2026-08-01T23:59:30+23:59", "2026-08-01T00:00:30Z"),
        ("2026-08-01T10:20:30.120000000Z", "2026-08-01T10:20:30.12Z"),
        ("2026-08-01T10:20:30.000Z", "2026-08-01T10:20:30Z"),
    ],
)
def test_other_spellings_of_a_time_are_the_same_time_and_written_as_go_does(
    text: str, same: str
) -> None:
    assert parse_time(text) == parse_time(same)
    assert format_time(parse_time(text)) == same


def test_digits_after_the_ninth_are_cut_and_not_rounded() -> None:
    assert parse_time("1970-01-01T00:00:00.9999999999Z") == 999_999_999
    assert parse_time("1970-01-01T00:00:00.0000000009Z") == 0
    assert parse_time(f"1970-01-01T00:00:00.{'1' * 10_000}Z") == 111_111_111


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "2026-08-01",
        "2026-08-01 10:20:30Z",
        "2026-08-01t10:20:30z",
        "2026-08-01T10:20:30",
        "2026-08-01T10:20:30.Z",
        "2026-08-01T10:20:30,5Z",
        "2026-08-01T10:20Z",
        "26-08-01T10:20:30Z",
        "2026-8-1T10:20:30Z",
        "2026-08-01T10:20:30Z\n",
        " 2026-08-01T10:20:30Z",
        "\u0662\u0660\u0662\u0666-08-01T10:20:30Z",
        "2026-08-01T10:20:30.\u0665Z",
        "2026-08-01T10:20:30+0200",
        "2026-08-01T10:20:30+02",
        "2026-08-01T10:20:30+24:00",
        "2026-08-01T10:20:30-24:00",
        "2026-08-01T10:20:30+02:60",
        "2026-00-01T10:20:30Z",
        "2026-13-01T10:20:30Z",
        "2026-02-29T10:20:30Z",
        "2026-08-00T10:20:30Z",
        "2026-08-01T24:00:00Z",
        "2026-08-01T10:60:30Z",
        "2026-08-01T10:20:60Z",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "10000-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
    ],
)
def test_what_go_would_not_write_is_refused_and_the_message_says_what_is_wanted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not an RFC 3339 time of the years 1 to 9999$"):
        parse_time(text)


@given(_moments)
def test_writing_and_reading_a_time_loses_nothing(moment: Nanoseconds) -> None:
    assert parse_time(format_time(moment)) == moment


@given(_moments)
def test_a_time_is_the_same_in_nanoseconds_but_for_what_python_does_not_hold(
    moment: Nanoseconds,
) -> None:
    assert to_nanoseconds(to_datetime(moment)) == moment // 1_000 * 1_000


@given(_moments, _moments)
def test_later_times_are_greater_by_all_nine_digits(one: Nanoseconds, other: Nanoseconds) -> None:
    texts = [
        format_time(moment).rstrip("Z").ljust(len("2026-08-01T10:20:30."))
        for moment in (one, other)
    ]

    assert (one < other) == (texts[0] < texts[1])


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_agree_with_pythons_own_where_that_is_exact(moment: datetime) -> None:
    text = moment.isoformat()

    assert datetime.fromisoformat(format_time(parse_time(text))) == moment
    assert to_datetime(parse_time(text)) == moment


@given(st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", fullmatch=True))
def test_what_looks_like_a_time_is_one_that_can_be_written_or_is_refused(text: str) -> None:
    try:
        moment = parse_time(text)
    except ValueError:
        return
    assert FIRST <= moment <= LAST
    assert parse_time(format_time(moment)) == moment
