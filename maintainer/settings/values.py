"""How a value of a setting is written: durations, sizes, cron expressions, names, addresses."""

import json
import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    TypeAdapter,
    ValidationError,
)

from maintainer.model.limits import KeepFree
from maintainer.sanitize import NUL, printable

DEFAULT_STORE = "github"
_MAX_PORT = 65_535
_DURATION = re.compile(r"(?:(\d{1,9})\s*(w|d|h|m|s)\s*)+", re.ASCII)
_PART = re.compile(r"(\d+)\s*(\w)", re.ASCII)
_DISCOVERY = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9._-]+", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"(\d{1,2}(?:\.\d{1,6})?)\s*%", re.ASCII)
_HAS_UNIT = re.compile(r"\d[\d.]*\s*[a-zA-Z]+", re.ASCII)
_SMALL_NUMBER = re.compile(r"0*[1-9]\d{0,5}", re.ASCII)
_CRON_FIELDS = 5
_CRON_FORM = "of five fields such as '30 3 * * *'"
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> object:
    """Read `90s`, `30m`, `24h`, `7d`, `2w` or `1d12h`; only 0 needs no unit. Raises ValueError."""
    if isinstance(text, timedelta):
        return text
    words = str(text).strip()
    if words and not words.strip("0"):
        return timedelta(0)
    parts = _PART.findall(words) if _DURATION.fullmatch(words) else []
    units = [unit for _, unit in parts]
    if not parts or len(set(units)) < len(units):
        raise ValueError("is not a valid duration; use 90s, 30m, 24h, 7d, 2w or 1d12h")
    try:
        return timedelta(**{_UNITS[unit]: int(number) for number, unit in parts})
    except OverflowError:
        raise ValueError("is too long") from None


def parse_keep_free(value: object) -> object:
    """Read `15%` or `1.5GB`; an empty text is None. Raises ValueError."""
    if value is None or isinstance(value, KeepFree):
        return value
    text = value.strip() if isinstance(value, str) else " "
    if not text:
        return None
    if share := _SHARE.fullmatch(text):
        return KeepFree(share=float(share[1]) / 100)
    try:
        if _HAS_UNIT.fullmatch(text):
            return KeepFree(size=int(TypeAdapter(ByteSize).validate_python(text)))
    except ValidationError:
        pass
    raise ValueError("is not a valid amount; use 15% or 1.5GB")


def _check_size(value: object) -> object:
    """Refuse `true`, and `10` where 10GB is meant: so small a quota deletes all.

    A number without a unit is bytes, so a small one is a mistake. Raises ValueError.
    """
    if isinstance(value, bool):
        raise ValueError("is not a valid size; use 10GB or 256MiB")  # noqa: TRY004 - Pydantic's
    if _SMALL_NUMBER.fullmatch(str(value).strip()):
        raise ValueError("has no unit; use 10GB or 256MiB")
    return value


def _check_number(value: object) -> object:
    """Refuse `true`, which would be one. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("is not a number")  # noqa: TRY004 - Pydantic's
    return value


def parse_size(text: str) -> int:
    """Read a size such as `10GB`. Raises ValueError."""
    try:
        return int(_SIZE.validate_python(text.strip()))
    except ValidationError:
        raise ValueError("is not a valid size; use 10GB or 256MiB") from None


def parse_sizes(text: str) -> list[int]:
    """Read sizes such as `5GB,10GB`. Raises ValueError."""
    try:
        return [int(one) for one in _SIZES.validate_python(split_list(text))]
    except ValidationError:
        raise ValueError("is not a list of sizes such as 5GB,10GB,20GB") from None


def split_list(value: object) -> object:
    """Read a list from one variable: separated by commas, or JSON for names with commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is not a valid JSON list") from None
    return [name.strip() for name in value.split(",") if name.strip()]


def check_cron(text: str) -> str:
    """Return a cron expression of five fields. Raises ValueError."""
    if len(text.split()) != _CRON_FIELDS:
        raise ValueError(f"is not a valid cron expression {_CRON_FORM}")
    try:
        first = next(CronSim(text, _ANY_DAY), None)
    except CronSimError as error:
        raise ValueError(
            f"is not a valid cron expression {_CRON_FORM}: {str(error).lower()}"
        ) from None
    if first is None:
        raise ValueError("names a day that never comes")
    return text


def check_discovery(name: str) -> str:
    if not _DISCOVERY.fullmatch(name):
        raise ValueError("is not valid; use up to 32 letters, digits, dashes and underscores")
    return name


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a valid time zone; use UTC or Europe/Berlin") from None
    return name


def check_hosts(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what no request has as its host, so that it would never match. Raises ValueError."""
    for name in names:
        if not (_HOST.fullmatch(name) or _is_address(name)):
            raise ValueError(
                f"{printable(repr(name))} is not a host name; write cache.example, without scheme "
                "and port"
            )
    return names


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_pattern(store: str) -> str:
    """Refuse a pattern that no path matches. Raises ValueError."""
    if NUL in store:
        raise ValueError("must not contain NUL")
    return store


def check_listen(text: str) -> str:
    split_listen(text)
    return text


def split_listen(text: str) -> tuple[str, int]:
    """Read HOST:PORT, where HOST is an address or `localhost`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    if not _is_address(host):
        raise ValueError("is not a valid address; use 127.0.0.1:9309")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= _MAX_PORT):  # noqa: PLR2004
        raise ValueError("is not a valid address; use 127.0.0.1:9309")
    return host, int(port)


# The limits come first, so that Pydantic's own rule checks them, with its well-known messages.
Grace = Annotated[
    timedelta, Field(ge=timedelta(0), le=timedelta(days=3650)), BeforeValidator(parse_duration)
]
Deadline = Annotated[
    timedelta, Field(gt=timedelta(0), le=timedelta(days=366)), BeforeValidator(parse_duration)
]
Interval = Annotated[
    timedelta,
    Field(ge=timedelta(seconds=1), le=timedelta(days=366)),
    BeforeValidator(parse_duration),
]
Delay = Annotated[
    timedelta, Field(ge=timedelta(0), le=timedelta(days=366)), BeforeValidator(parse_duration)
]
Cron = Annotated[str, AfterValidator(check_cron)]
TimeZone = Annotated[str, AfterValidator(_check_timezone)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Count = Annotated[int, BeforeValidator(_check_number)]
Share = Annotated[float, Field(gt=0, le=1), BeforeValidator(_check_number)]
Size = Annotated[ByteSize, BeforeValidator(_check_size)]
Quota = Annotated[Size, Field(gt=0, le=10**18)]
_SIZE = TypeAdapter(Quota)
_SIZES = TypeAdapter(Annotated[list[Quota], Field(min_length=1)])
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,256}$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
