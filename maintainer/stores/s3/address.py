"""`s3://BUCKET/PREFIX?…`: where a cache is, in the words of BuildKit's `type=s3`. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from maintainer.errors import UsageError
from maintainer.sanitize import is_unicode, printable
from maintainer.settings import parse_duration
from maintainer.stores.layout import Layout

FORM = "s3://BUCKET/PREFIX?region=REGION for a bucket"
_BLOBS = "blobs/"
_MANIFESTS = "manifests/"
_ONCE = frozenset(
    {"region", "endpoint_url", "path_style", "blobs_prefix", "touch_refresh", "longest_export"}
)
_KNOWN = _ONCE | {"manifests_prefix"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cache is."""

    bucket: str
    prefix: str = ""
    """The beginning of all keys: BuildKit adds no slash."""
    region: str | None = None
    endpoint_url: str | None = None
    path_style: bool = False
    """Whether the bucket is in the path of URLs, not in the name of the host."""
    blobs_prefix: str = _BLOBS
    manifests_prefixes: tuple[str, ...] = (_MANIFESTS,)
    """Of all indexes that share these blobs."""
    touch_refresh: timedelta = timedelta(hours=24)
    """How old a blob may be before an export that finds it writes it anew."""
    longest_export: timedelta = timedelta(hours=2)
    """The time between the first blob that an export looks up and its index."""

    @property
    def layout(self) -> Layout:
        """Where it keeps what."""
        return Layout(
            name=self.name,
            prefix=self.prefix,
            blobs=self.prefix + self.blobs_prefix,
            manifests=tuple(self.prefix + one for one in self.manifests_prefixes),
            least_grace=self.touch_refresh + self.longest_export,
        )

    @property
    def name(self) -> str:
        """Return the parts that identify it, in their shortest form."""
        given = [("endpoint_url", self.endpoint_url or "")]
        given.append(("blobs_prefix", "" if self.blobs_prefix == _BLOBS else self.blobs_prefix))
        if self.manifests_prefixes != (_MANIFESTS,):
            given += [("manifests_prefix", one) for one in self.manifests_prefixes]
        query = urlencode([pair for pair in given if pair[1]], safe=":/")
        return f"s3://{self.bucket}/{quote(self.prefix)}" + (f"?{query}" if query else "")

    @property
    def identity(self) -> tuple[str, ...]:
        """The place of its blobs: two caches must not share it."""
        return ("s3", self.endpoint_url or "", self.bucket, self.prefix + self.blobs_prefix)


def read_address(text: str) -> Address:
    """Read the setting `store`. Raises UsageError."""
    parts = urlsplit(text)
    if not parts.netloc or "@" in parts.netloc or parts.fragment:
        raise _wrong(f"must be {FORM}; credentials are those of the AWS SDK, never a part of it")
    try:
        given = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _wrong("what follows the question mark must be NAME=VALUE&NAME=VALUE") from None
    for name, values in given.items():
        if name not in _KNOWN:
            raise _wrong(f"{printable(name)} is unknown; use {', '.join(sorted(_KNOWN))}")
        if name in _ONCE and len(values) > 1:
            raise _wrong(f"{name} is given {len(values)} times")
    once = {name: values[0] for name, values in given.items()}
    manifests = tuple(dict.fromkeys(given.get("manifests_prefix", [_MANIFESTS])))
    prefix = unquote(parts.path).removeprefix("/")
    if not all(map(is_unicode, (prefix, *manifests, *once.values()))):
        raise _wrong("must be UTF-8")
    blobs = once.get("blobs_prefix", _BLOBS)
    for one in manifests:
        if one.startswith(blobs) or blobs.startswith(one):
            raise _wrong("neither of blobs_prefix and manifests_prefix may begin with the other")
    return Address(
        bucket=parts.netloc,
        prefix=prefix,
        region=once.get("region") or None,
        endpoint_url=_endpoint(once.get("endpoint_url", "")),
        path_style=_flag(once.get("path_style", "false")),
        blobs_prefix=blobs,
        manifests_prefixes=manifests,
        touch_refresh=_duration("touch_refresh", once.get("touch_refresh", "24h")),
        longest_export=_duration("longest_export", once.get("longest_export", "2h")),
    )


def _endpoint(url: str) -> str | None:
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise _wrong("endpoint_url must be a URL such as https://s3.example.com, without a user")
    return url.rstrip("/")


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise _wrong("path_style must be true or false")
    return text.lower() in ("true", "1")


def _duration(name: str, text: str) -> timedelta:
    try:
        read = parse_duration(text)
    except ValueError as error:
        raise _wrong(f"{name} {error}") from None
    if not isinstance(read, timedelta) or read > timedelta(days=366):
        raise _wrong(f"{name} is too long")
    return read


def _wrong(problem: str) -> UsageError:
    return UsageError(f"setting store: {problem}")
