"""`KIND://HOST/PATH?NAME=VALUE&…`: how people write where a cache is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from maintainer.errors import SettingError, UsageError
from maintainer.sanitize import is_unicode, printable
from maintainer.settings import parse_duration

_REPEATED = "manifests_prefix"
_NOT_UTF_8 = "must be UTF-8"
_LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Given:
    """What was written."""

    host: str
    path: str
    """Without the slash that it begins with."""
    values: Mapping[str, Sequence[str]]

    def one(self, name: str, default: str = "") -> str:
        """Return a value that is given at most once."""
        return self.values.get(name, (default,))[0]

    def manifests(self, default: str) -> tuple[str, ...]:
        """Return all prefixes of manifests, the first one first."""
        return tuple(dict.fromkeys(self.values.get(_REPEATED, (default,))))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of indexes, written like BuildKit's attribute `name`."""
        return self.selected("names", ";")

    def selected(self, name: str, separator: str) -> tuple[str, ...]:
        """Return what is to be maintained of a cache; nothing if that is all of it.

        Raises UsageError if it is empty: a variable that is not set would select everything.
        """
        selected = tuple(dict.fromkeys(filter(None, self.one(name).split(separator))))
        if name in self.values and not selected:
            raise wrong(f"{name} is empty: leave it out to maintain all {name}")
        return selected

    def url(self, name: str, example: str) -> str | None:
        """Return the URL of a service."""
        text = self.one(name)
        if not text:
            return None
        if not _is_plain_url(text):
            raise wrong(f"{name} must be a URL such as {example}, without a user or a query")
        return _without_usual_port(text.rstrip("/"))

    def flag(self, name: str) -> bool:
        """Return whether something is on."""
        text = self.one(name, "false").lower()
        if text not in ("true", "false", "1", "0"):
            raise wrong(f"{name} must be true or false")
        return text in ("true", "1")

    def duration(self, name: str, default: str) -> timedelta:
        """Return a time."""
        try:
            read = parse_duration(self.one(name, default))
        except ValueError as error:
            raise wrong(f"{name} {error}") from None
        if not isinstance(read, timedelta) or read > _LONGEST:
            raise wrong(f"{name} is too long")
        return read


def _is_plain_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_url and not ("@" in parts.netloc or parts.query or parts.fragment)


def _without_usual_port(url: str) -> str:
    """Return a URL without the port that it has anyway: that would make two caches of one."""
    parts = urlsplit(url)
    return parts._replace(netloc=usual_host(parts.scheme, parts.netloc)).geturl()


def usual_host(scheme: str, host: str) -> str:
    """Return a host without the port that a scheme has anyway."""
    return host.removesuffix(":443" if scheme == "https" else ":80")


def take_apart(text: str, known: Collection[str], form: str, credentials: str) -> Given:
    """Take a setting `store` apart. Raises UsageError, which says whose credentials are used."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise wrong(f"must be {form}") from None
    if not parts.netloc or "@" in parts.netloc or parts.fragment:
        raise wrong(f"must be {form}; credentials are those of {credentials}, never a part of it")
    try:
        path = unquote(parts.path, errors="strict").removeprefix("/")
    except UnicodeDecodeError:
        raise wrong(_NOT_UTF_8) from None
    if not is_unicode(path):
        raise wrong(_NOT_UTF_8)
    return Given(parts.netloc, path, read_query(parts.query, known))


def read_query(query: str, known: Collection[str]) -> Mapping[str, Sequence[str]]:
    """Read what follows the question mark. Raises UsageError."""
    try:
        values = parse_qs(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"
        )
    except UnicodeDecodeError:
        raise wrong(_NOT_UTF_8) from None
    except ValueError:
        raise wrong("what follows the question mark must be NAME=VALUE&NAME=VALUE") from None
    for name, given in values.items():
        if name not in known:
            raise wrong(f"{printable(name)} is unknown; use {', '.join(sorted(known))}")
        if name != _REPEATED and len(given) > 1:
            raise wrong(f"{name} is given {len(given)} times")
    if not all(is_unicode(one) for given in values.values() for one in given):
        raise wrong(_NOT_UTF_8)
    return values


def refuse_overlap(blobs: str, manifests: Collection[str]) -> None:
    """Raise UsageError if blobs could pass for manifests."""
    if any(one.startswith(blobs) or blobs.startswith(one) for one in manifests):
        raise wrong("neither of blobs_prefix and manifests_prefix may begin with the other")


def write_address(
    kind: str, host: str, path: str, values: Collection[tuple[str, str | None]]
) -> str:
    """Return such a setting, without the values that are empty."""
    query = urlencode([pair for pair in values if pair[1]], safe=":/;*?")
    return f"{kind}://{host}/{quote(path)}" + (f"?{query}" if query else "")


def wrong(problem: str) -> UsageError:
    """Return the error."""
    return SettingError("store", problem)
