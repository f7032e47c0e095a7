"""Cron expressions mean what people know from `crontab` and from workflows."""

import pytest

from maintainer.cron import Cron, parse_cron

EVERY_DAY = frozenset(range(1, 32))
EVERY_MONTH = frozenset(range(1, 13))
EVERY_WEEKDAY = frozenset(range(7))


def test_stars_are_everything() -> None:
    assert parse_cron("* * * * *") == Cron(
        frozenset(range(60)), frozenset(range(24)), EVERY_DAY, EVERY_MONTH, EVERY_WEEKDAY
    )


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("7", {7}),
        ("1,5,59", {1, 5, 59}),
        ("10-13", {10, 11, 12, 13}),
        ("*/20", {0, 20, 40}),
        ("5/15", {5, 20, 35, 50}),
        ("10-30/10", {10, 20, 30}),
        ("0-10/5,58", {0, 5, 10, 58}),
    ],
)
def test_a_field_is_a_list_of_numbers_ranges_and_steps(text: str, minutes: set[int]) -> None:
    assert parse_cron(f"{text} * * * *").minutes == minutes


@pytest.mark.parametrize(
    ("text", "weekdays"),
    [
        ("0", {0}),
        ("7", {0}),
        ("sun", {0}),
        ("MON", {1}),
        ("mon-fri", {1, 2, 3, 4, 5}),
        ("5-7", {5, 6, 0}),
    ],
)
def test_sunday_is_0_and_7(text: str, weekdays: set[int]) -> None:
    assert parse_cron(f"0 0 * * {text}").weekdays == weekdays


def test_months_have_names() -> None:
    assert parse_cron("0 0 1 jan,6,Dec *").months == {1, 6, 12}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no cron expression of five fields"),
        ("* * * *", "is no cron expression of five fields"),
        ("@daily", "is no cron expression of five fields"),
        ("0 0 * * * 2027", "is no cron expression of five fields"),
        ("60 * * * *", "has no such minute as '60'"),
        ("* 24 * * *", "has no such hour as '24'"),
        ("* * 0 * *", "has no such day of the month as '0'"),
        ("* * * 13 *", "has no such month as '13'"),
        ("* * * * 8", "has no such day of the week as '8'"),
        ("* * * * noday", "has no such day of the week as 'noday'"),
        ("*/0 * * * *", "has no such minute as '\\*/0'"),
        ("30-10 * * * *", "has no such minute as '30-10'"),
        ("*-5 * * * *", "has no such minute as '\\*-5'"),
        (", * * * *", "has no such minute as ''"),
        ("-1 * * * *", "has no such minute as '-1'"),
        ("\N{ARABIC-INDIC DIGIT THREE} * * * *", "has no such minute"),
        ("1e1 * * * *", "has no such minute as '1e1'"),
        ("0 0 30 2 *", "names a day that no such month has"),
        ("0 0 31 4,6 *", "names a day that no such month has"),
        ("0 0 13 * fri", "say only one of them"),
    ],
)
def test_what_is_no_cron_expression_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_cron(text)


def test_a_leap_day_is_a_day() -> None:
    assert parse_cron("0 0 29 2 *").days == {29}
