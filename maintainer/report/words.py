"""The format of numbers and times, the same in every form of the report."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from maintainer.cacheconfig import BLOB_PREFIX

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_THOUSAND = 1000
_THREE_DIGITS = 99.95
_LEAST_SHARE = 0.001
_DIGEST_DIGITS = 12
_A_MOMENT = timedelta(minutes=1)
_NAMED = 3
"""Up to this many names are listed."""


def format_size(size: int) -> str:
    """Format bytes with a unit and about three digits: `84.5 kB`."""
    value = float(size)
    for unit in _UNITS:
        if abs(value) < _THOUSAND - 0.5 or unit == _UNITS[-1]:
            break
        value /= _THOUSAND
    whole = unit == "B" or abs(value) >= _THREE_DIGITS
    return f"{value:,.0f} {unit}" if whole else f"{value:.1f} {unit}"


def format_count(number: int, what: str, several: str | None = None) -> str:
    """Format a number of things: `1 entry`, `1,009 entries`."""
    plural = several or (f"{what[:-1]}ies" if what.endswith("ry") else f"{what}s")
    return f"{number:,} {what if number == 1 else plural}"


def format_part(number: int, whole: int, what: str, several: str | None = None) -> str:
    """Format how many of some things: `3 of 5 entries`; `5 entries` if it is all of them."""
    some = f"{number:,} of " if number < whole else ""
    return f"{some}{format_count(whole, what, several)}"


def format_few(names: Sequence[str]) -> str:
    """Format a list of names: the first of them, and how many others there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def format_share(share: float) -> str:
    """Format a share of a whole in per cent."""
    if 0 < share < _LEAST_SHARE:
        return "<0.1 %"
    if 1 - _LEAST_SHARE < share < 1:
        return ">99.9 %"
    return f"{share:.1%}".replace("%", " %")


def format_moment(moment: datetime) -> str:
    """Format a time, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_duration(duration: timedelta) -> str:
    """Format a duration in the largest unit with a count of at least two, or of exactly one."""
    seconds = max(0, int(duration.total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length or seconds == length:
            return format_count(seconds // length, unit)
    return format_count(seconds, "second")


def format_digest(digest: str) -> str:
    """Shorten a digest to a unique beginning; other text stays unchanged."""
    algorithm, colon, digits = digest.partition(":")
    if colon and len(digits) > _DIGEST_DIGITS and digits.isalnum():
        return f"{algorithm}:{digits[:_DIGEST_DIGITS]}"
    return digest


def format_key(key: str) -> str:
    """Shorten the digest in the key of a blob."""
    if not key.startswith(BLOB_PREFIX):
        return key
    digest, signature, _ = key.removeprefix(BLOB_PREFIX).partition("-sig")
    return f"{BLOB_PREFIX}{format_digest(digest)}{signature}"


def as_sentence(text: str) -> str:
    """Begin a text with a capital letter, and end it with a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def format_ago(moment: datetime, now: datetime) -> str:
    """Format how long ago something was."""
    age = now - moment
    return f"{format_duration(age)} ago" if age >= _A_MOMENT else "just now"


def format_in(moment: datetime, now: datetime) -> str:
    """Format in how long something will be."""
    wait = moment - now
    return f"in {format_duration(wait)}" if wait >= _A_MOMENT else "now"
