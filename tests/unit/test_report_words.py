"""Numbers are said with units, in words that people use."""

from datetime import UTC, datetime, timedelta

import pytest

from maintainer.report.words import (
    format_ago,
    format_count,
    format_digest,
    format_duration,
    format_in,
    format_key,
    format_share,
    format_size,
)

DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (84_523, "84.5 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (10_000_000_000, "10.0 GB"),
        (12 * 10**18, "12,000 PB"),
    ],
)
def test_sizes(size: int, said: str) -> None:
    assert format_size(size) == said


@pytest.mark.parametrize(
    ("number", "what", "said"),
    [(0, "entry", "0 entries"), (1, "entry", "1 entry"), (1_009, "blob", "1,009 blobs")],
)
def test_counts(number: int, what: str, said: str) -> None:
    assert format_count(number, what) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0.0 %"), (0.0001, "<0.1 %"), (0.5, "50.0 %"), (0.9999, ">99.9 %"), (1, "100.0 %")],
)
def test_shares_are_nothing_or_all_only_if_they_are(share: float, said: str) -> None:
    assert format_share(share) == said


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(seconds=-5), "0 seconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=119), "119 seconds"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(hours=26), "26 hours"),
        (timedelta(days=9, hours=5), "9 days"),
    ],
)
def test_durations(duration: timedelta, said: str) -> None:
    assert format_duration(duration) == said


def test_only_digests_are_shortened() -> None:
    assert format_digest(f"sha256:{DIGITS}") == "sha256:0123456789ab"
    assert format_digest("a: name that is no digest") == "a: name that is no digest"
    assert format_key(f"buildkit-blob-1-sha256:{DIGITS}-sig") == (
        "buildkit-blob-1-sha256:0123456789ab-sig"
    )
    assert format_key(f"index-{DIGITS}-1-00000000#1") == f"index-{DIGITS}-1-00000000#1"


def test_times_are_told_from_now() -> None:
    now = datetime(2026, 1, 2, 12, tzinfo=UTC)

    assert format_ago(now - timedelta(hours=3), now) == "3 hours ago"
    assert format_ago(now + timedelta(hours=3), now) == "just now"
    assert format_in(now + timedelta(minutes=90), now) == "in 90 minutes"
    assert format_in(now, now) == "now"
