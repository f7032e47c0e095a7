"""Whatever a client sends, the emulator refuses it in order: never with 500, never at length."""

from collections.abc import Iterator
from urllib.parse import quote

import httpx2
import pytest

from maintainer.emulator import ActionsCache, Running, serve_in_thread
from maintainer.emulator.web import MAX_JSON

TWIRP = "/twirp/github.actions.results.api.v1.CacheService"
V1 = "/_apis/artifactcache"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serve_in_thread(ActionsCache()) as running:
        running.call(lambda cache: cache.put("key", b"content", ref="refs/heads/main"))
        yield running


@pytest.fixture
def service(running: Running) -> Iterator[httpx2.Client]:
    token = running.environment("refs/heads/main")["ACTIONS_RUNTIME_TOKEN"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=running.url, headers=headers) as client:
        yield client


@pytest.fixture
def rest(running: Running) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {running.environment('')['GITHUB_TOKEN']}"}
    with httpx2.Client(base_url=f"{running.url}/repos/a/b/actions", headers=headers) as client:
        yield client


BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"key": "\xff", "version": "v"}',
    "half a surrogate": rb'{"key": "\ud800", "version": "v"}',
    "another shape": b'["key"]',
    "a key that is a number": b'{"key": 1, "version": "v"}',
    "an empty key": b'{"key": "", "version": "v"}',
    "no version": b'{"key": "k"}',
    "a key that is too long": b'{"key": "' + b"k" * 513 + b'", "version": "v"}',
    "deep nesting": b"[" * 60_000,
    "deep nesting of what is not read": b'{"x": ' + b"[" * 50_000 + b"]" * 5_000 + b"}",
    "a huge number": b'{"key": "k", "version": "v", "size_bytes": ' + b"9" * 5_000 + b', "x": 1e9',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    "path",
    [
        f"{TWIRP}/GetCacheEntryDownloadURL",
        f"{TWIRP}/CreateCacheEntry",
        f"{TWIRP}/FinalizeCacheEntryUpload",
        f"{V1}/caches",
    ],
)
def test_a_body_that_makes_no_sense_is_a_bad_request(
    service: httpx2.Client, path: str, body: bytes
) -> None:
    answer = service.post(path, content=body)
    assert answer.status_code == httpx2.codes.BAD_REQUEST
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.content) < 1_000


@pytest.mark.parametrize("size", ["-1", "1.5", '"-1"', '"\u0661"', '""', "9" * 30, "true", "[]"])
def test_a_size_that_is_none_is_a_bad_request(service: httpx2.Client, size: str) -> None:
    body = f'{{"key": "k", "version": "v", "size_bytes": {size}}}'.encode()
    answer = service.post(f"{TWIRP}/FinalizeCacheEntryUpload", content=body)
    assert answer.status_code == httpx2.codes.BAD_REQUEST


def test_json_beyond_the_limit_is_refused(service: httpx2.Client) -> None:
    answer = service.post(f"{TWIRP}/CreateCacheEntry", content=b" " * (MAX_JSON + 1))
    assert answer.status_code == httpx2.codes.CONTENT_TOO_LARGE


@pytest.mark.parametrize("number", ["0", "-1", "x", "1x", "\u0661", "1/2", "%00", "9" * 5_000])
def test_an_id_that_is_none_is_not_found(
    service: httpx2.Client, rest: httpx2.Client, number: str
) -> None:
    number = quote(number)
    answers = [
        service.post(f"{V1}/caches/{number}", json={"size": 0}),
        service.patch(f"{V1}/caches/{number}", headers={"Content-Range": "bytes 0-0/*"}),
        service.get(f"/emulator/actions-cache/{number}"),
        rest.delete(f"caches/{number}"),
    ]
    refused = {httpx2.codes.NOT_FOUND, httpx2.codes.FORBIDDEN}
    assert {answer.status_code for answer in answers} <= refused


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes */*", "bytes 0-/*", "bytes 5-4/*", "bytes 0-99/*", f"bytes 0-{'9' * 5_000}/*"],
)
def test_a_content_range_that_is_none_is_a_bad_request(
    service: httpx2.Client, content_range: str
) -> None:
    key = {"key": f"range {content_range}"[:512], "version": "v"}
    cache_id = service.post(f"{V1}/caches", json=key).json()["cacheId"]
    answer = service.patch(
        f"{V1}/caches/{cache_id}", content=b"abc", headers={"Content-Range": content_range}
    )
    assert answer.status_code == httpx2.codes.BAD_REQUEST


@pytest.mark.parametrize("query", ["", "keys=", "keys=a,", "keys=" + ",a" * 11, "keys=%ff&version"])
def test_keys_of_version_1_that_make_no_sense_find_nothing(
    service: httpx2.Client, query: str
) -> None:
    answer = service.get(f"{V1}/cache?{query}")
    assert answer.status_code in (httpx2.codes.BAD_REQUEST, httpx2.codes.NO_CONTENT)


@pytest.mark.parametrize(
    "query", ["sort=", "sort=key", "direction=up", "sort=created_at&direction=%00"]
)
def test_an_order_that_is_none_is_a_bad_request(rest: httpx2.Client, query: str) -> None:
    assert rest.get(f"caches?{query}").status_code == httpx2.codes.BAD_REQUEST


@pytest.mark.parametrize("number", ["0", "-1", "x", "\u0661", "9" * 5_000])
def test_pages_that_are_no_numbers_are_the_first(rest: httpx2.Client, number: str) -> None:
    answer = rest.get("caches", params={"page": number, "per_page": number})
    assert [entry["key"] for entry in answer.json()["actions_caches"]] == ["key"]


def test_a_range_that_is_none_is_ignored(service: httpx2.Client, running: Running) -> None:
    version = running.call(lambda cache: cache.entries()[0].version)
    named = {"key": "key", "version": version}
    found = service.post(f"{TWIRP}/GetCacheEntryDownloadURL", json=named).json()
    for asked in ("bytes=-1", "bytes=a-b", "lines=1-2", f"bytes={'9' * 5_000}-"):
        answer = httpx2.get(found["signed_download_url"], headers={"Range": asked})
        assert answer.content == b"content"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", f"{TWIRP}/CreateCacheEntry"),
        ("POST", f"{TWIRP}/Nothing"),
        ("DELETE", f"{V1}/caches"),
        ("POST", "/repos/a/b/actions/caches"),
        ("GET", "/repos/a/actions/caches"),
    ],
)
def test_other_addresses_do_not_exist(service: httpx2.Client, method: str, path: str) -> None:
    answer = service.request(method, path)
    assert answer.status_code in (httpx2.codes.NOT_FOUND, httpx2.codes.METHOD_NOT_ALLOWED)
