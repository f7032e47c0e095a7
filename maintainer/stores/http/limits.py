"""What responses say about rate limits: whether to wait, how long, and how much remains.

Source: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import httpx2

from maintainer.model.allowance import Heard
from maintainer.stores.http.answers import LATEST, Answer
from maintainer.stores.http.dates import read_http_date
from maintainer.stores.http.requests import RequestLog

_SECONDARY = b"secondary rate limit"
_SECONDARY_WAIT = timedelta(minutes=1)
"""What GitHub asks for where a secondary limit does not say it."""
_LONGEST_WINDOW = timedelta(days=1)
"""A limit that is reset later is not believed. GitHub's is reset each hour."""
_LATEST = 2**33
"""A second of the year 2242: later ones are not plausible times."""


def is_rate_limited(answer: Answer) -> bool:
    """Return whether an answer is a rate limit: GitHub may send 403, as for a refused token."""
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    return answer.status == HTTPStatus.FORBIDDEN and (
        "retry-after" in answer.headers
        or _number(answer.headers, "x-ratelimit-remaining") == 0
        or _SECONDARY in answer.content.lower()
    )


def service_now(answer: Answer) -> datetime:
    """Return the time by the clock of the service, which its other times are of; ours may be wrong.

    Without a header `Date`, it is our time.
    """
    return read_http_date(answer.headers.get("date", "")) or datetime.now(UTC)


def requested_wait(answer: Answer, now: datetime) -> timedelta | None:
    """Return how long the service asks us to wait; None if it does not say."""
    if "retry-after" in answer.headers:
        return _retry_after(answer.headers["retry-after"], now)
    if not is_rate_limited(answer):
        return None
    reset = _number(answer.headers, "x-ratelimit-reset")
    if _number(answer.headers, "x-ratelimit-remaining") == 0 and reset is not None:
        return _until(datetime.fromtimestamp(reset, UTC), now)
    return _SECONDARY_WAIT if _SECONDARY in answer.content.lower() else None


def note_rate_limit(answer: Answer, requests: RequestLog) -> None:
    """Remember what an answer of the REST API says about its rate limit, and its clock."""
    requests.answered_at = _answered_at(answer)
    remaining = _number(answer.headers, "x-ratelimit-remaining")
    if remaining is None:
        return
    requests.rate_limit_remaining = remaining
    requests.rate_limit = _number(answer.headers, "x-ratelimit-limit")
    reset = _number(answer.headers, "x-ratelimit-reset")
    requests.rate_limit_reset_at = None if reset is None else datetime.fromtimestamp(reset, UTC)
    requests.window.note(requests.rate_limit_reset_at)


def _answered_at(answer: Answer) -> datetime | None:
    """Return the time on the service's clock; a proxy says how long it has kept an answer."""
    date = read_http_date(answer.headers.get("date", ""))
    age = _number(answer.headers, "age") or 0
    if date is None or date.year > LATEST.year:  # Nothing can be added to the last times.
        return None
    return date + timedelta(seconds=age)


def read_limit(answer: Answer) -> Heard | None:
    """Return what an answer says about its rate limit; None if it does not count.

    Without the time of the reset nobody could tell when requests remain again: as if unlimited.
    """
    reset = _number(answer.headers, "x-ratelimit-reset")
    remaining = _number(answer.headers, "x-ratelimit-remaining")
    if reset is None or remaining is None:
        return Heard() if answer.status < HTTPStatus.BAD_REQUEST else None
    resets_in = timedelta(seconds=reset - service_now(answer).timestamp())
    if not timedelta(0) < resets_in <= _LONGEST_WINDOW:
        return None
    most = _number(answer.headers, "x-ratelimit-limit")
    return Heard(most=most, remaining=remaining, resets_in=resets_in)


def _retry_after(value: str, now: datetime) -> timedelta | None:
    """Read seconds, or an HTTP date."""
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value[:12]), _LATEST))
    moment = read_http_date(value)
    return _until(moment, now) if moment else None


def _until(moment: datetime, now: datetime) -> timedelta:
    return max(moment - now, timedelta(0))


def _number(headers: httpx2.Headers, name: str) -> int | None:
    value = headers.get(name, "")
    if not (value.isascii() and value.isdigit()):
        return None
    return min(int(value[:12]), _LATEST)
