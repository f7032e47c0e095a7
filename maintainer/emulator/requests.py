"""The kind of a request, derived from its method and path."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "list",
    "look-up",
    "download",
    "reserve",
    "upload",
    "finalize",
    "delete",
    "usage",
    "limit",
    "refs",
    "other",
]
"""The names by which a run counts its own requests, and a few that it rarely sends."""

TWIRP = "/twirp/github.actions.results.api.v1.CacheService"
ARTIFACT_CACHE = "/_apis/artifactcache"
BLOBS = "/emulator/actions-cache"
"""Account and container: Azure's clients split a URL into these and the blob's name."""

_KINDS: list[tuple[Kind, str, str]] = [
    ("look-up", "POST", rf"{TWIRP}/GetCacheEntryDownloadURL"),
    ("reserve", "POST", rf"{TWIRP}/CreateCacheEntry"),
    ("finalize", "POST", rf"{TWIRP}/FinalizeCacheEntryUpload"),
    ("look-up", "GET", rf"{ARTIFACT_CACHE}/cache"),
    ("reserve", "POST", rf"{ARTIFACT_CACHE}/caches"),
    ("upload", "PATCH", rf"{ARTIFACT_CACHE}/caches/.*"),
    ("finalize", "POST", rf"{ARTIFACT_CACHE}/caches/.*"),
    ("download", "GET|HEAD", rf"{BLOBS}/.*"),
    ("upload", "PUT", rf"{BLOBS}/.*"),
    ("list", "GET", r"/repos/[^/]+/[^/]+/actions/caches"),
    ("delete", "DELETE", r"/repos/[^/]+/[^/]+/actions/caches(/.*)?"),
    ("usage", "GET", r"/repos/[^/]+/[^/]+/actions/cache/usage"),
    (
        "limit",
        "GET",
        r"/repos/[^/]+/[^/]+/actions/cache/(storage-limit|retention-limit|usage-policy)",
    ),
    ("refs", "GET", r"/repos/[^/]+/[^/]+(/pulls(/.*)?|/git/ref/.*)?"),
]
_PATTERNS = [
    (kind, re.compile(methods), re.compile(path, re.DOTALL)) for kind, methods, path in _KINDS
]
_ID = re.compile(r".*/([0-9]{1,18})", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as an observer sees it."""

    number: int
    """Counts all requests of a server from 1."""
    kind: Kind
    method: str
    path: str
    key: str | None
    """Its key, if it names one or the entry exists."""
    status: int | None = None
    """None before it is carried out, and if the connection was closed without a response."""
    fault: str | None = None
    """The kind of the injected fault."""


Observer = Callable[[Request], object]
"""Runs on the server's own thread, so it may read and change the cache."""


def classify(method: str, path: str) -> Kind:
    """Return the kind of a request."""
    for kind, methods, pattern in _PATTERNS:
        if methods.fullmatch(method) and pattern.fullmatch(path):
            return kind
    return "other"


def id_in(path: str) -> int | None:
    """Return the number at the end of a path, if there is one."""
    match = _ID.fullmatch(path)
    return int(match[1]) if match else None
