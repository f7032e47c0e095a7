"""Registries that say too much, the wrong thing, or want what is not theirs."""

import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import anyio
import httpx2
import pytest
from msgspec.json import encode

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.oci import MANIFEST_TYPE
from maintainer.errors import ChangedError, StoreError, UnreadableError
from maintainer.stores.distribution.auth import Authorizer
from maintainer.stores.distribution.client import MANIFEST_LIMIT, Client
from maintainer.stores.distribution.credentials import Credentials
from maintainer.stores.distribution.names import Repository
from maintainer.stores.distribution.packages import Packages, Version
from maintainer.stores.http.answers import Answer, MalformedAnswerError
from maintainer.stores.http.client import Http
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.registry.inline import has_inline_cache
from maintainer.stores.registry.look import Image
from tests.integration.scripted import Reply, Request, Server, html, json, serve
from tests.integration.world import AT_ONCE

_T = TypeVar("_T")

_ME = Credentials("me", "secret-password")
_BASIC = f"Basic {base64.b64encode(b'me:secret-password').decode()}"
_BLOB = Digest(f"sha256:{hashlib.sha256(b'{}').hexdigest()}")
_OTHER = Digest(f"sha256:{'0' * 64}")
_SECRETS = ("secret", "tok-")


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Server]:
    with serve("localhost") as server:
        yield server


def _ask(
    server: Server,
    ask: Callable[[Client], Awaitable[_T]],
    known: Credentials | None = None,
    *,
    insecure: bool = True,
) -> _T:
    """Send one request to a registry."""

    async def find() -> Credentials | None:
        return known

    async def run() -> _T:
        async with Http(RequestLog(), AT_ONCE) as http:
            repository = Repository(server.url.removeprefix("http://"), "octo/cache", insecure)
            return await ask(Client(http, repository, find))

    return anyio.run(run)


def _wants_token(server: Server, service: Server, status: int = 401) -> Callable[[Request], Reply]:
    """Answer what needs a token; return the script of a page."""

    def script(request: Request) -> Reply:
        if request.headers.get("authorization") == "Bearer tok-1":
            return json({"tags": ["a"]})
        challenge = f'Bearer realm="{service.url}/token",service="reg",scope="repository:evil:*"'
        return Reply(status, b"", {"WWW-Authenticate": challenge})

    server.on("list", script)
    return script


def test_a_token_is_fetched_once_with_the_password_and_for_our_repository_only(
    server: Server, other: Server
) -> None:
    _wants_token(server, other)
    other.on("token", json({"token": "tok-1"}))

    async def ask(client: Client) -> object:
        return [await client.tags(), await client.tags()]

    assert _ask(server, ask, _ME) == [["a"], ["a"]]
    (asked,) = other.requests
    assert asked.query == {"service": ["reg"], "scope": ["repository:octo/cache:pull"]}
    assert asked.headers["authorization"] == _BASIC
    assert {one.headers.get("authorization") for one in server.requests} == {None, "Bearer tok-1"}


def test_an_identity_token_is_exchanged_in_the_body(server: Server, other: Server) -> None:
    _wants_token(server, other)
    other.on("token", json({"access_token": "tok-1"}))

    assert _ask(server, Client.tags, Credentials(identity_token="secret-id")) == ["a"]
    (asked,) = other.requests
    assert asked.method == "POST"
    assert b"grant_type=refresh_token&refresh_token=secret-id" in asked.body
    assert not asked.query


def test_a_password_is_sent_only_where_it_is_asked_for(server: Server) -> None:
    wants = Reply(401, b"", {"WWW-Authenticate": 'Basic realm="r"'})
    server.on("list", wants, json({"tags": None}))

    assert _ask(server, Client.tags, _ME) == []
    assert [one.headers.get("authorization") for one in server.requests] == [None, _BASIC]


@pytest.mark.parametrize(
    ("answers", "known", "problem"),
    [
        ([json({"token": ""})], _ME, "it has no token"),
        ([json({"token": "tok-1\r\nX: y"})], _ME, "it has no token"),
        ([Reply(200, b"secret")], _ME, "malformed"),
        ([Reply(401)], _ME, "do not allow it"),
        ([Reply(403)], None, "run `docker login"),
        ([json({"token": "tok-2"})], _ME, "do not allow it"),
        ([Reply(200, b"x" * 300_000)], _ME, "more than"),
    ],
)
def test_a_token_service_that_fails_is_reported_without_secrets(
    server: Server, other: Server, answers: list[Reply], known: Credentials | None, problem: str
) -> None:
    _wants_token(server, other)
    other.on("token", *answers)

    with pytest.raises(StoreError, match=problem) as error:
        _ask(server, Client.tags, known)

    assert not any(secret in str(error.value) for secret in _SECRETS)


@pytest.mark.parametrize(
    "realm", ["http://a.example/", "https://me:pw@a.example/", "file:///etc", "//a.example", ""]
)
def test_no_password_goes_to_a_token_service_without_tls(realm: str) -> None:
    headers = httpx2.Headers({"WWW-Authenticate": f'Bearer realm="{realm}"'})
    request = httpx2.Request("GET", "https://reg.example/v2/")
    answer = Answer(HTTPStatus.UNAUTHORIZED, headers, b"", request)

    async def find() -> Credentials:
        return _ME

    async def renew() -> None:
        async with Http(RequestLog(), AT_ONCE) as http:
            authorizer = Authorizer(http, Repository("reg.example", "octo/cache"), find)
            await authorizer.renew("pull", None, answer)

    with pytest.raises(MalformedAnswerError, match="names no token service"):
        anyio.run(renew)


def test_a_token_does_not_follow_a_blob_to_another_host(server: Server, other: Server) -> None:
    def script(request: Request) -> Reply:
        if "authorization" not in request.headers:
            return Reply(401, b"", {"WWW-Authenticate": "Basic"})
        return Reply(307, b"", {"Location": f"{other.url}/content?signature=secret"})

    server.on(_BLOB, script)
    other.on("content", Reply(200, b"{}"))

    async def ask(client: Client) -> object:
        return [await client.has_blob(_BLOB), await client.blob(_BLOB, limit=10)]

    assert _ask(server, ask, _ME) == [True, b"{}"]
    assert all("authorization" not in one.headers for one in other.requests)


def test_a_token_does_not_follow_an_upload_to_another_host(server: Server, other: Server) -> None:
    wants = Reply(401, b"", {"WWW-Authenticate": "Basic"})
    server.on(_BLOB, Reply(404))
    server.on("", wants, Reply(202, b"", {"Location": f"{other.url}/put?state=secret"}))
    other.on("put", Reply(201))

    _ask(server, lambda client: client.push_blob(b"{}"), _ME)

    (sent,) = other.requests
    assert "authorization" not in sent.headers
    assert sent.query == {"state": ["secret"], "digest": [_BLOB]}


def test_another_host_cannot_ask_for_the_password(server: Server, other: Server) -> None:
    wants = Reply(401, b"", {"WWW-Authenticate": "Basic"})
    elsewhere = {"Location": f"{other.url}/content"}
    server.on(_BLOB, wants, Reply(307, b"", elsewhere), Reply(404))
    server.on("", wants, Reply(202, b"", elsewhere))
    other.on("content", Reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{other.url}/token"'}))
    other.on("token", json({"token": "tok-1"}))

    for ask in (lambda client: client.has_blob(_BLOB), lambda client: client.push_blob(b"{}")):
        with pytest.raises(StoreError):
            _ask(server, ask, _ME)

    assert len(other.asked("content")) == 2
    assert not other.asked("token")
    assert all("authorization" not in one.headers for one in other.requests)


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://[", "//:0"])
def test_an_upload_to_nowhere_is_refused(server: Server, location: str) -> None:
    server.on(_BLOB, Reply(404))
    server.on("", Reply(202, b"", {"Location": location}))

    with pytest.raises(StoreError):
        _ask(server, lambda client: client.push_blob(b"{}"))


@pytest.mark.parametrize("what", ["write", "delete", "delete by an API"])
def test_what_was_looked_at_right_before_is_looked_at_again_before_each_retry(
    server: Server, what: str
) -> None:
    version = Version(1, datetime(2026, 1, 1, tzinfo=UTC), is_tagged=False)
    wants = Reply(401, b"", {"WWW-Authenticate": "Basic"})
    answers = [Reply(503), Reply(503)] if what == "delete by an API" else [wants, Reply(503)]
    for name in ("a", _OTHER, "1"):
        server.on(name, *answers, Reply(201))
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise ChangedError("a build has exported")

    async def ask(client: Client) -> None:
        if what == "write":
            await client.push_manifest("a", b"{}", look)
        elif what == "delete":
            await client.delete_manifest(_OTHER, look)
        else:
            packages = Packages(client._http, "", "", "t", _place=server.url)
            await packages.delete(version, look)

    _ask(server, ask, _ME)
    assert (looks, len(server.requests)) == (2, 3)

    for name in ("a", _OTHER, "1"):
        server.on(name, Reply(503))
    with pytest.raises(ChangedError):
        _ask(server, ask, _ME)
    assert len(server.requests) == 4


def test_a_proxy_that_shows_no_size_for_head_makes_no_blob_missing(server: Server) -> None:
    def answer(request: Request) -> Reply:
        return Reply(200, b"" if request.method == "HEAD" else b"{}")

    server.on(_BLOB, answer)

    assert _ask(server, lambda client: client.has_blob(_BLOB))
    assert [one.method for one in server.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_deletion_whose_answer_was_lost_is_one(server: Server, *, is_lost: bool) -> None:
    version = Version(1, datetime(2026, 1, 1, tzinfo=UTC), is_tagged=False)
    for name in (_OTHER, "1"):
        server.on(name, *([Reply(502)] if is_lost else []), Reply(404))

    async def ask(client: Client) -> list[bool]:
        packages = Packages(client._http, "", "", "t", _place=server.url)
        return [await client.delete_manifest(_OTHER), await packages.delete(version)]

    assert _ask(server, ask, _ME) == [is_lost] * 2


def test_a_page_of_a_proxy_is_neither_a_blob_nor_a_manifest(server: Server) -> None:
    for name in ("a", _BLOB):
        server.on(name, html())

    for ask in (_manifest("a"), lambda client: client.has_blob(_BLOB)):
        with pytest.raises(StoreError, match="a page for people"):
            _ask(server, ask)


@pytest.mark.parametrize("secret", [_BASIC, _ME.password])
def test_a_message_that_repeats_the_token_or_the_password_is_not_shown(
    server: Server, secret: str
) -> None:
    wants = Reply(401, b"", {"WWW-Authenticate": "Basic"})
    said = json({"errors": [{"message": f"{'x' * 290} {secret} is wrong"}]}, 400)
    server.on("a", wants, said)

    with pytest.raises(StoreError, match=r"answered HTTP 400$"):
        _ask(server, _manifest("a"), _ME)


@pytest.mark.parametrize("secret", ["tok-pull-0123456789", "tok-push-0123456789", _ME.password])
def test_a_message_that_repeats_a_secret_of_another_request_is_not_shown(
    server: Server, other: Server, secret: str
) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{other.url}/token",service="registry"'}
    other.on("token", *(json({"token": f"tok-{what}-0123456789"}) for what in ("pull", "push")))
    server.on("a", Reply(401, b"", challenge), Reply(404, b""))
    said = json({"errors": [{"message": f"there was {secret} before"}]}, 400)
    server.on("", Reply(401, b"", challenge), said)
    server.on(_BLOB, Reply(404, b""))

    async def ask(client: Client) -> None:
        assert await client.manifest("a") is None
        await client.push_blob(b"{}")

    with pytest.raises(StoreError, match=r"answered HTTP 400$"):
        _ask(server, ask, _ME)


def test_an_image_that_cannot_be_read_is_only_not_counted(server: Server) -> None:
    child = {"mediaType": MANIFEST_TYPE, "digest": _OTHER}
    server.on(_OTHER, Reply(200, b"{}"))
    image = Image.of(encode({"manifests": [child]}))

    assert not _ask(server, lambda client: has_inline_cache(client, image))
    assert server.requests


def _page(link: str, *tags: str) -> Reply:
    return json({"name": "octo/cache", "tags": list(tags)}, link=link)


def test_the_list_of_tags_is_read_page_by_page(server: Server) -> None:
    server.on(
        "list",
        _page('</v2/octo/cache/tags/list?last=b>; rel="next"', "b", "a"),
        _page(f"<{server.url}/v2/octo/cache/tags/list?last=c>;rel=next", "c", "-no", "x" * 129),
        _page('<list>; rel="first", <list?last=d>; title="x"; rel="next"', "d"),
        json({"tags": ["e"]}, link='<other>; rel="prev"'),
    )

    assert _ask(server, Client.tags) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("<list?last=a>; rel=next", "does not end"),
        ("</v2/secret/other/tags/list>; rel=next", "links to another list"),
        ("<http://localhost:1/v2/octo/cache/tags/list>; rel=next", "links to another list"),
        ("<http://[>; rel=next", "links to"),
    ],
)
def test_a_list_that_loops_or_leaves_is_refused(server: Server, link: str, problem: str) -> None:
    server.on("list", _page(link, "a"))

    with pytest.raises(StoreError, match=problem):
        _ask(server, Client.tags)


def test_a_repository_that_does_not_exist_has_no_list(server: Server) -> None:
    server.on("list", json({"errors": [{"message": "unknown"}]}, 404))

    assert _ask(server, Client.tags) is None


def _manifest(reference: str) -> Callable[[Client], Awaitable[Any]]:
    return lambda client: client.manifest(reference)


def test_a_manifest_that_is_too_large_is_not_read(server: Server) -> None:
    server.on("a", Reply(200, b" " * (MANIFEST_LIMIT + 1)))

    with pytest.raises(UnreadableError, match="more than 4,194,304 bytes"):
        _ask(server, _manifest("a"))


def test_a_manifest_with_another_content_is_not_believed(server: Server) -> None:
    server.on("a", Reply(200, b"{}", {"Docker-Content-Digest": _OTHER}))
    server.on(_OTHER, Reply(200, b"{}"))

    for reference in ("a", _OTHER):
        with pytest.raises(UnreadableError, match="another one"):
            _ask(server, _manifest(reference))


@pytest.mark.parametrize("said", ["", "garbage", "md5:00"])
def test_a_registry_that_names_no_digest_is_read_instead(server: Server, said: str) -> None:
    server.on("a", Reply(200, b"{}", {"Docker-Content-Digest": said, "Content-Type": "x/y; q=1"}))

    head = _ask(server, lambda client: client.head("a"))

    assert head
    assert (head.digest, head.media_type) == (_BLOB, "x/y")


def test_too_many_requests_are_tried_again_when_the_registry_says_so(server: Server) -> None:
    server.on("list", Reply(429, b"", {"Retry-After": "0"}), json({"tags": ["a"]}))

    assert _ask(server, Client.tags) == ["a"]
    assert len(server.requests) == 2


def test_what_a_registry_says_is_shown_in_one_short_line(server: Server) -> None:
    server.on("a", json({"errors": [{"message": "no\n\x1b[31m" + "x" * 9_999}]}, 400))

    with pytest.raises(StoreError, match=r"HTTP 400: no\\n") as error:
        _ask(server, _manifest("a"))

    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_a_registry_without_tls_is_reported_at_once_with_the_setting_that_allows_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    with pytest.raises(StoreError, match=r"TLS, WRONG_VERSION_NUMBER: .* add `\?insecure=true`"):
        _ask(server, Client.tags, insecure=False)

    assert "retrying" not in caplog.text


def test_a_sentence_of_a_registry_does_not_end_ours_with_a_second_dot(server: Server) -> None:
    server.on(_OTHER, json({"errors": [{"message": "The operation is unsupported."}]}, 405))

    problem = _ask(server, lambda client: client.why_not_deletable(_OTHER))

    assert problem
    assert problem.endswith("HTTP 405: The operation is unsupported")


def test_a_token_service_that_grants_no_deletion_is_a_refusal(
    server: Server, other: Server
) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{other.url}/token"'}
    server.on(_OTHER, Reply(401, b"", challenge))
    other.on("token", Reply(403))

    problem = _ask(server, lambda client: client.why_not_deletable(_OTHER), _ME)

    assert problem
    assert "do not allow it" in problem
    assert other.requests[0].query == {"scope": ["repository:octo/cache:delete"]}


def _version(number: int, **more: object) -> dict[str, object]:
    at = "2026-01-01T00:00:00Z"
    name = f"sha256:{number:064x}"
    return {"id": number, "name": name, "created_at": at, "updated_at": at, **more}


def _list_versions(server: Server) -> dict[Digest, Version]:
    async def run() -> dict[Digest, Version]:
        async with Http(RequestLog(), AT_ONCE) as http:
            return await Packages(http, server.url, "octo/team/cache", "secret-token").versions()

    return anyio.run(run)


def test_the_versions_of_a_package_are_read_page_by_page(server: Server) -> None:
    def script(request: Request) -> Reply:
        first = 100 * (int(request.query["page"][0]) - 1)
        return json([_version(number) for number in range(first, min(first + 100, 230))])

    server.on("versions", script)

    assert len(_list_versions(server)) == 230
    assert {one.path for one in server.requests} == {
        "/orgs/octo/packages/container/team%2Fcache/versions"
    }


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Reply(401, b'{"message": "Bad credentials"}'), "HTTP 401: Bad credentials"),
        (Reply(403, b"secret-token"), "HTTP 403$"),
        (Reply(404), "GITHUB_TOKEN may not read it"),
        (json([_version(number) for number in range(100)]), "does not end"),
        (json([{"name": "x"}]), "malformed"),
        (json({"message": "x"}), "malformed"),
        (Reply(200, b"[" * 100_000), "malformed"),
    ],
)
def test_what_github_says_of_packages_is_an_error_without_the_token(
    server: Server, answer: Reply, problem: str
) -> None:
    server.on("versions", answer)

    with pytest.raises(StoreError, match=problem) as error:
        _list_versions(server)

    assert "secret-token" not in str(error.value)


@pytest.mark.parametrize(
    ("at", "year"), [("2026-01-01T00:00:00", 2026), ("9999-12-31T23:59:59Z", 9000)]
)
def test_a_version_without_a_plausible_time_is_not_old(server: Server, at: str, year: int) -> None:
    server.on("versions", json([_version(1, created_at=at, updated_at=at)]))

    (version,) = _list_versions(server).values()

    assert (version.changed_at.year, version.changed_at.tzinfo) == (year, UTC)


def test_a_manifest_that_is_listed_twice_has_the_tags_and_the_later_time_of_both(
    server: Server,
) -> None:
    tags = {"container": {"tags": ["a"]}}
    later = _version(1, updated_at="2026-02-01T00:00:00Z", metadata=tags)
    server.on("versions", json([later, _version(1)]))

    (version,) = _list_versions(server).values()

    assert version.is_tagged
    assert version.changed_at.month == 2


def test_what_is_no_manifest_is_not_a_version(server: Server) -> None:
    names = ({"name": "v1"}, {"name": "sha256:"}, {"metadata": {"container": {"tags": ["a"]}}})
    server.on("versions", json([_version(number, **names[number]) for number in range(3)]))

    (version,) = _list_versions(server).values()

    assert version.is_tagged


@pytest.mark.parametrize(
    ("status", "refused"), [(202, False), (404, False), (405, True), (403, True), (400, True)]
)
def test_whether_manifests_can_be_deleted_is_asked_with_one_that_does_not_exist(
    server: Server, status: int, refused: bool
) -> None:
    server.on(_OTHER, Reply(status))

    problem = _ask(server, lambda client: client.why_not_deletable(_OTHER))

    assert (problem is not None) == refused
    assert [one.method for one in server.requests] == ["DELETE"]
