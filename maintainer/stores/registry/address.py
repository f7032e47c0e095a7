"""`registry://HOST/REPOSITORY?…`: where a cache of BuildKit's `type=registry` is."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlencode, urlsplit

from maintainer.sanitize import printable
from maintainer.stores.address import Given, read_query, usual_host, wrong
from maintainer.stores.distribution.names import (
    HUB,
    Repository,
    is_host,
    is_known_as_host,
    is_repository,
)

FORM = "registry://HOST/REPOSITORY"
_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9._*?-]{0,127}")
_KNOWN = frozenset({"tags", "insecure", "packages_url"})
_URLS = {"ghcr.io": "https://api.github.com"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cache is."""

    host: str
    """With the port, if it is not the usual one."""
    repository: str
    tags: tuple[str, ...] = ()
    """The tags to maintain, with `*` and `?` as in names of files; all if empty."""
    insecure: bool = False
    """Whether the registry speaks HTTP without TLS."""
    packages_url: str | None = None
    """The REST API of the GitHub that the registry belongs to, if it does."""

    @property
    def has_usual_packages(self) -> bool:
        """Whether nobody needs to say where that API is."""
        return self.packages_url == _URLS.get(self.host)

    @property
    def remote(self) -> Repository:
        """The repository."""
        return Repository(self.host, self.repository, self.insecure)

    @property
    def name(self) -> str:
        """Return the parts that identify it, in their shortest form."""
        query = urlencode([("tags", ",".join(self.tags))] if self.tags else [], safe=",*?")
        return f"registry://{self._usual_host}/{self.repository}" + (f"?{query}" if query else "")

    @property
    def identity(self) -> tuple[str, ...]:
        """The repository: two caches must not share it."""
        return ("registry", self._usual_host, self.repository)

    @property
    def _usual_host(self) -> str:
        """The host without the port that it has anyway; Docker's configuration may have it."""
        return usual_host("http" if self.insecure else "https", self.host)

    def selects(self, tag: str) -> bool:
        """Whether a tag is one of those to maintain."""
        return not self.tags or any(fnmatchcase(tag, one) for one in self.tags)


def read_address(text: str) -> Address:
    """Read the setting `store`. Raises UsageError."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise wrong(f"must be {FORM}") from None
    if "@" in parts.netloc:
        raise wrong(f"must be {FORM}; credentials are those of `docker login`, never a part of it")
    if parts.fragment:
        raise wrong(f"must be {FORM}, without a #")
    host, repository = parts.netloc.lower(), parts.path.removeprefix("/").removesuffix("/")
    if not is_host(host) or not repository:
        raise wrong(f"must be {FORM}")
    if not is_known_as_host(host):
        raise wrong(
            f"{host} is not a host, as Docker reads it: for Docker Hub, write "
            f"registry://{HUB}/{host}/{printable(repository)}"
        )
    if host == HUB and "/" not in repository:
        repository = f"library/{repository}"
    if "@" in repository:
        raise wrong("names a digest: runs maintain tags")
    if ":" in repository:
        raise wrong("names a tag: write it behind the question mark, such as ?tags=main,pr-*")
    if not is_repository(repository):
        raise wrong(f"{printable(repository)} is not the name of a repository")
    given = Given(host, repository, read_query(parts.query, _KNOWN))
    insecure, url = given.flag("insecure"), given.one("packages_url")
    return Address(
        host=host,
        repository=repository,
        tags=_tags(given),
        insecure=insecure,
        packages_url=_url(url, insecure=insecure) if url else _URLS.get(host),
    )


def _tags(given: Given) -> tuple[str, ...]:
    tags = given.selected("tags", ",")
    for one in tags:
        if not _PATTERN.fullmatch(one):
            raise wrong(f"{printable(one)} is not a tag, nor a pattern of tags such as pr-*")
    return tags


def _url(text: str, *, insecure: bool) -> str:
    parts = urlsplit(text)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and insecure)
    if not (is_safe and is_host(parts.netloc.lower())):
        raise wrong(
            "packages_url must be a URL such as https://github.example.com/api/v3, without a user"
        )
    return text.rstrip("/")
