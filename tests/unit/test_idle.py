"""When a run may end at once, to the microsecond."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.model import reason as reasons
from maintainer.model.decision import Keep
from maintainer.model.idle import LONGEST, Idle, Outlook
from tests.snapshots import MAIN, NOW, ago, hours

A_MOMENT = timedelta(microseconds=1)
PRINT = b"what it saw"

LASTING = [
    reasons.UpToDate(is_named=False),
    reasons.NothingLeft(),
    reasons.Signed(),
    reasons.UsedByBuilds("key", is_named=False),
    reasons.NotWritable(MAIN),
    reasons.NotADigest(),
    reasons.NotAFile(is_link=True),
    reasons.NotABlobDirectory(),
    reasons.BrokenTag("it is empty"),
    reasons.Unrecognized(),
]
DOUBTS = [
    reasons.Unread(),
    reasons.UnreadIndex("index-web"),
    reasons.IncompleteList(),
    reasons.StillReferenced("index-web", MAIN),
    reasons.IndexNotRewritten("index-web", MAIN),
    reasons.OpaqueIndex("index-web-1", MAIN, NOW + LONGEST),
    reasons.ExportInProgress(MAIN, NOW),
    reasons.NotBroken(reasons.AddSink()),
    reasons.NewestUnread(reasons.DeadlinePassed()),
    reasons.TooLarge("it is too large", 10),
    reasons.Damaged(),
]


def keep(reason: reasons.Reason) -> Keep:
    return Keep("subject", MAIN, reason)


def an_outlook() -> Outlook:
    outlook = Outlook(NOW)
    outlook.fingerprint = PRINT
    return outlook


def until(outlook: Outlook) -> timedelta | None:
    """Return for how long the next runs may be idle; None if the next one may not."""
    idle = outlook.idle(7)
    return idle.until - NOW if idle else None


def test_a_run_is_idle_from_the_moment_of_the_one_before_until_something_is_due() -> None:
    idle = Idle(1, PRINT, NOW, NOW + hours(2))

    assert not idle.holds(PRINT, NOW - A_MOMENT)
    assert idle.holds(PRINT, NOW)
    assert idle.holds(PRINT, NOW + hours(2) - A_MOMENT)
    assert not idle.holds(PRINT, NOW + hours(2))


@pytest.mark.parametrize("other", [None, b"", b"something else"])
def test_a_run_that_sees_anything_else_is_not_idle(other: bytes | None) -> None:
    assert not Idle(1, PRINT, NOW, NOW + hours(2)).holds(other, NOW + hours(1))


def test_nothing_is_remembered_without_a_fingerprint() -> None:
    assert Outlook(NOW).idle(7) is None


def test_a_run_with_nothing_due_is_remembered_for_a_day() -> None:
    assert an_outlook().idle(7) == Idle(7, PRINT, NOW, NOW + LONGEST)
    assert timedelta(days=1) == LONGEST


def test_what_falls_due_first_counts() -> None:
    outlook = an_outlook()

    outlook.expect(NOW + hours(5))
    outlook.expect(NOW + hours(3))
    outlook.expect(NOW + hours(4))
    outlook.expect(None)

    assert until(outlook) == hours(3)


def test_nothing_is_remembered_for_more_than_a_day() -> None:
    outlook = an_outlook()

    outlook.expect(NOW + LONGEST + A_MOMENT)

    assert until(outlook) == LONGEST


@pytest.mark.parametrize(
    ("due", "remembered"), [(-A_MOMENT, None), (timedelta(0), None), (A_MOMENT, A_MOMENT)]
)
def test_what_is_due_now_is_not_put_off(due: timedelta, remembered: timedelta | None) -> None:
    outlook = an_outlook()

    outlook.expect(NOW + due)

    assert until(outlook) == remembered


def test_a_doubt_is_not_forgotten() -> None:
    outlook = an_outlook()

    outlook.doubt()
    outlook.expect(NOW + hours(3))
    outlook.expect(None)
    outlook.keep([keep(reasons.NothingLeft())])

    assert outlook.idle(7) is None


def test_a_grace_period_falls_due_when_it_ends() -> None:
    outlook = an_outlook()

    outlook.keep([keep(reasons.Grace("dangling", ago(hours(20)), NOW + hours(4)))])

    assert until(outlook) == hours(4)


@pytest.mark.parametrize("reason", LASTING, ids=reasons.code_of)
def test_what_is_kept_as_long_as_nothing_changes_is_never_due(reason: reasons.Reason) -> None:
    outlook = an_outlook()

    outlook.keep([keep(reason)])

    assert until(outlook) == LONGEST


@pytest.mark.parametrize("reason", DOUBTS, ids=reasons.code_of)
def test_what_a_later_run_may_decide_otherwise_is_a_doubt(reason: reasons.Reason) -> None:
    outlook = an_outlook()

    outlook.keep([keep(reasons.NothingLeft()), keep(reason), keep(reasons.NothingLeft())])

    assert outlook.idle(7) is None


@given(st.lists(st.timedeltas(timedelta(0), timedelta(days=2)), max_size=5))
def test_the_order_in_which_a_run_learns_of_it_does_not_matter(dues: list[timedelta]) -> None:
    outlook = an_outlook()

    for due in dues:
        outlook.expect(NOW + due)

    assert until(outlook) == (min([*dues, LONGEST]) or None)
