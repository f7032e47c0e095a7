"""Answers of a bucket or container that break the protocol prove nothing: each is one line."""

import gc
import json
import re
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from azure.core.pipeline.transport import AsyncHttpTransport
from botocore.retries.standard import ExponentialBackoff

from maintainer.errors import ChangedError, EntryError, RefusedError, StoreError, UnreadableError
from maintainer.stores.azblob import client as azblob
from maintainer.stores.azblob.address import Address
from maintainer.stores.objects.layout import Layout
from maintainer.stores.objects.requests import Objects
from maintainer.stores.s3 import client as s3
from maintainer.stores.s3.address import Address as S3Address
from tests.stores.scripted import Answer, Scripted, answering

_DATE = "Wed, 01 Jan 2025 00:00:00 GMT"
_TAGGED = {"ETag": '"x"', "Last-Modified": _DATE}
_LARGE = _TAGGED | {"Content-Range": "bytes 0-199/200"}
_SERVER_BUSY = Answer(503, {"x-ms-error-code": "ServerBusy"})


def _azure_page(parts: str, marker: str = "") -> Answer:
    blob = f"<Blob><Name>app/x</Name><Properties>{parts}</Properties></Blob>"
    page = f"<Blobs>{blob}</Blobs><NextMarker>{marker}</NextMarker>"
    body = f'<?xml version="1.0"?><EnumerationResults>{page}</EnumerationResults>'
    return Answer(200, {"Content-Type": "application/xml"}, body.encode())


def _s3_page(parts: str) -> Answer:
    body = f"<ListBucketResult><Contents><Key>app/x</Key>{parts}</Contents></ListBucketResult>"
    return Answer(200, {"Content-Type": "application/xml"}, body.encode())


_NO_STATUS = Answer(
    202,
    {"Content-Type": "multipart/mixed; boundary=b"},
    b"--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 abc -\r\n\r\n--b--\r\n",
)
_MODIFIED = f"<Last-Modified>{_DATE}</Last-Modified>"
_SIZE = "<Content-Length>1</Content-Length>"
_TYPE = "<BlobType>BlockBlob</BlobType>"
_COMPLETE = f"{_MODIFIED}<Etag>x</Etag>{_SIZE}{_TYPE}"
_S3_TIME = "<LastModified>2025-01-01T00:00:00Z</LastModified>"
_S3_CUT = b"<ListBucketResult><Contents><Key>app/x</Key></Contents>"
_S3_SOON, _S3_LATEST = _S3_TIME.replace("2025", "soon"), _S3_TIME.replace("2025", "9999")
_NEVER = "Wed, 01 Jan 99999999999999 00:00:00 GMT"
_DAYS = "<Rule><Status>Enabled</Status><Expiration><Days>x</Days></Expiration></Rule>"
_XML = {"Content-Type": "application/xml"}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv(azblob.KEY, "aGVsbG8=")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK of S3 try again without a wait, which is seconds for some answers."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)


@asynccontextmanager
async def _azure(url: str) -> AsyncIterator[Objects]:
    address = Address("account", "cache", "app", f"{url}/account")
    async with azblob.open_container(address) as container:
        yield container


@asynccontextmanager
async def _s3(url: str) -> AsyncIterator[Objects]:
    address = S3Address("cache", "app/", "us-east-1", url, path_style=True)
    async with s3.open_bucket(address) as bucket:
        yield bucket


Open = Callable[[str], AbstractAsyncContextManager[Objects]]


async def _list(objects: Objects) -> None:
    with anyio.fail_after(10):
        async for _ in objects.list("app/"):
            pass


async def _look(objects: Objects) -> None:
    assert await objects.head("app/x") is None, "it was found"


async def _get(objects: Objects) -> None:
    assert await objects.get("app/x", limit=100) is None, "it was found"


async def _put(objects: Objects) -> None:
    await objects.put("app/x", b"{}", over='"x"')


async def _delete(objects: Objects) -> None:
    for error in (await objects.delete({"app/x": '"x"'})).values():
        raise error


async def _delete_by_key(objects: Objects) -> None:
    await objects.delete({"app/x": None})


def _error(
    open_it: Open, do: Callable[[Objects], object], *answers: Answer
) -> tuple[str, Scripted]:
    """Return the error that an answer leads to."""

    async def ask(url: str) -> None:
        async with open_it(url) as objects:
            await do(objects)  # type: ignore[misc]

    gc.freeze()  # So that the collection below looks at what is new only.
    with answering(*answers) as server, pytest.raises(StoreError) as error:
        anyio.run(ask, server.url)
    message = str(error.value)
    del error
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        # aiobotocore leaves a connection open if it cannot parse a list.
        gc.collect()
    assert "\n" not in message
    return message, server


@pytest.mark.parametrize(
    ("open_it", "do", "answer", "problem"),
    [
        (_azure, _list, _azure_page(f"{_MODIFIED}{_SIZE}{_TYPE}"), "malformed"),
        (_azure, _list, _azure_page(f"<Etag>x</Etag>{_SIZE}{_TYPE}"), "malformed"),
        (_azure, _list, _azure_page(f"{_MODIFIED}<Etag>x</Etag>{_TYPE}"), "malformed"),
        (_azure, _list, _azure_page(_COMPLETE.replace(_DATE, "soon")), "^app/: "),
        (_azure, _list, _azure_page(_COMPLETE.replace(">1<", ">many<")), "^app/: "),
        (_azure, _list, _azure_page(_COMPLETE, marker="1"), "breaks off"),
        (_azure, _list, Answer(200, {}, b"<html>hello</html>"), "^app/: "),
        (_azure, _list, Answer(200, {"Content-Type": "application/json"}, b"[1]"), "^app/: "),
        (_azure, _list, Answer(200, {}, b""), "^app/: "),
        (_azure, _list, Answer(404, {}, b"not here"), "^app/: "),
        (_azure, _look, Answer(200, {"Last-Modified": _DATE}), "malformed"),
        (_azure, _look, Answer(200, {"ETag": '"x"'}), "malformed"),
        (_azure, _look, Answer(404), "^app/x: "),
        (_azure, _look, Answer(404, {"x-ms-error-code": "ContainerNotFound"}), "ContainerNotFound"),
        (_azure, _look, Answer(302, {"Location": "http://127.0.0.1:1/"}), "^app/x: "),
        (_azure, _get, Answer(200, {"Last-Modified": _DATE}), "malformed"),
        (_azure, _get, Answer(206, _LARGE, b"{}" * 100), "more than 100 bytes"),
        (_azure, _get, Answer(200, _TAGGED | {"Content-Length": "50"}, b"{}"), "^app/x: "),
        (_azure, _get, Answer(404), "^app/x: "),
        (_azure, _put, Answer(412), "^app/x: 412"),
        (_azure, _put, Answer(403, {"x-ms-error-code": "AuthorizationPermissionMismatch"}), "Auth"),
        (_azure, _delete, Answer(403, {"x-ms-error-code": "AuthorizationFailure"}), "Auth"),
        (_azure, _delete, Answer(404), "^app/x: "),
        (_azure, _delete, _NO_STATUS, "malformed"),
        (_s3, _list, _s3_page(f"{_S3_TIME}<Size>1</Size>"), "malformed"),
        (_s3, _list, _s3_page("<ETag>e</ETag><Size>1</Size>"), "malformed"),
        (_s3, _list, _s3_page(f"{_S3_TIME}<ETag>e</ETag>"), "malformed"),
        (_s3, _list, _s3_page(f"{_S3_TIME}<ETag>e</ETag><Size>-1</Size>"), "malformed"),
        (_s3, _list, _s3_page(f"{_S3_TIME}<ETag>e</ETag><Size>many</Size>"), "malformed"),
        (_s3, _list, _s3_page(f"{_S3_SOON}<ETag>e</ETag><Size>1</Size>"), "malformed"),
        (_s3, _list, _s3_page(f"{_S3_LATEST}<ETag>e</ETag><Size>1</Size>"), "malformed"),
        (_s3, _list, Answer(200, {}, b""), "malformed"),
        (_s3, _list, Answer(200, {}, _S3_CUT), "^app/: 500"),
        (_s3, _list, Answer(206, {}, _S3_CUT), "malformed"),
        (_s3, _delete_by_key, Answer(206, {}, b"<DeleteResult><Deleted>"), "malformed"),
        (_s3, _look, Answer(200, {"Last-Modified": _DATE}), "malformed"),
        (_s3, _look, Answer(200, {"Last-Modified": "soon", "ETag": "e"}), "malformed"),
        (_s3, _look, Answer(200, {"ETag": '"x"'}), "malformed"),
        (_s3, _get, Answer(200, {"Last-Modified": _DATE}, b"{}"), "malformed"),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_an_error_in_one_line(
    open_it: Open,
    do: Callable[[Objects], object],
    answer: Answer,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AsyncHttpTransport, "sleep", _no_sleep)

    said, _ = _error(open_it, do, answer)

    assert re.search(problem, said), said


@pytest.mark.parametrize(
    ("rule", "upload"),
    [("", ""), ("<Rule/>", "<Upload/>"), (_DAYS, "<Upload><Initiated>soon</Initiated></Upload>")],
)
def test_a_bucket_whose_set_up_cannot_be_read_has_no_notes(rule: str, upload: str) -> None:
    rules = f"<LifecycleConfiguration>{rule}</LifecycleConfiguration>"
    uploads = f"<ListMultipartUploadsResult>{upload}</ListMultipartUploadsResult>"
    bodies = (rules, "<VersioningConfiguration/>", uploads)

    async def ask(url: str) -> None:
        async with _s3(url) as bucket:
            layout = Layout("bucket", "app/", "app/blobs/", ("app/manifests/",))
            assert not await bucket.notes(layout, datetime.now(UTC))

    with answering(*(Answer(200, _XML, one.encode()) for one in bodies)) as server:
        anyio.run(ask, server.url)


_TEXT = b"text" * 2**20


def _is_json(beginning: bytes) -> bool:
    return beginning.startswith(b"{")


@pytest.mark.parametrize(
    ("open_it", "answer"),
    [
        (_azure, Answer(206, _TAGGED | {"Content-Range": "bytes 0-4194303/5000000"}, _TEXT)),
        (_s3, Answer(200, _TAGGED | {"Content-Length": "5000000"}, _TEXT)),
    ],
)
def test_of_what_is_not_wanted_only_the_beginning_is_read(open_it: Open, answer: Answer) -> None:
    async def ask(url: str) -> None:
        async with open_it(url) as objects:
            found = await objects.get("app/x", limit=100, is_wanted=_is_json)
            assert found
            assert _TEXT.startswith(found[1])

    with answering(answer) as server:
        anyio.run(ask, server.url)
        assert len(server.asked) == 1


def test_a_program_that_never_gives_credentials_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.stores.objects.requests._CONNECTING", timedelta(seconds=0.2))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text("[default]\ncredential_process = sleep 1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    async def ask() -> None:
        with pytest.raises(StoreError, match="no credentials within"):
            async with _s3("http://127.0.0.1:1"):
                pass
        # Later it would end a program whose loop is closed, in the middle of another test.
        for one in threading.enumerate():
            if "waitpid" in one.name:
                await anyio.to_thread.run_sync(one.join)

    anyio.run(ask)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("echo secret", "configuration or credentials"),
        ("echo '[1]'", "configuration or credentials"),
        ("echo secret >&2; exit 1", "custom-process of the AWS SDK failed"),
    ],
)
def test_a_program_that_gives_no_credentials_is_reported_without_what_it_says(
    program: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    helper, config = tmp_path / "helper", tmp_path / "config"
    helper.write_text(f"#!/bin/sh\n{program}\n")
    helper.chmod(0o755)
    config.write_text(f"[default]\ncredential_process = {helper}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    said, server = _error(_s3, _look, Answer(404))

    assert problem in said
    assert "secret" not in said
    assert not server.asked


def test_a_clock_of_a_service_beyond_all_times_is_none() -> None:
    async def ask(url: str) -> None:
        async with _s3(url) as bucket:
            found = await bucket.head("app/x")
            assert found
            assert found.answered_at is None

    with answering(Answer(200, _TAGGED | {"Date": _NEVER})) as server:
        anyio.run(ask, server.url)


async def _no_sleep(_transport: object, _seconds: float) -> None:
    """Wait for nobody."""


def test_a_service_that_is_busy_is_asked_again_and_then_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(_transport: object, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(AsyncHttpTransport, "sleep", sleep)
    gone = Answer(404, {"x-ms-error-code": "BlobNotFound"})

    async def ask(url: str) -> None:
        async with _azure(url) as objects:
            await _look(objects)

    with answering(_SERVER_BUSY, _SERVER_BUSY, gone) as server:
        anyio.run(ask, server.url)
        assert len(server.asked) == 3
    assert all(0 < wait < 20 for wait in waits)

    said, server = _error(_azure, _look, _SERVER_BUSY)
    assert "ServerBusy" in said
    assert len(server.asked) == 4
    assert sum(waits) < 60


def test_a_list_that_goes_round_ends() -> None:
    token = "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>"
    azure = [_azure_page(_COMPLETE, marker=one) for one in "1212"]
    page = "<ListBucketResult>{}</ListBucketResult>"
    s3_pages = [Answer(200, _XML, page.format(token.format(one)).encode()) for one in "1212"]

    for open_it, pages in ((_azure, azure), (_s3, s3_pages)):
        said, server = _error(open_it, _list, *pages)

        assert "breaks off" in said
        assert len(server.asked) == 3


@pytest.mark.parametrize("open_it", [_azure, _s3])
def test_a_service_that_never_answers_is_given_up(
    open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.stores.objects.requests._LONGEST", timedelta(milliseconds=50))

    async def ask() -> None:
        async with open_it(f"http://127.0.0.1:{silent.getsockname()[1]}") as objects:
            await _look(objects)

    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(StoreError, match=r"^app/x: timed out$"):
        anyio.run(ask)


def test_only_what_the_service_checks_is_repeated_without_a_new_look() -> None:
    busy = Answer(503, _XML, b"<Error><Code>SlowDown</Code><Message>wait</Message></Error>")
    refused = Answer(403, _XML, b"<Error><Code>AccessDenied</Code></Error>")

    async def delete(bucket: Objects) -> None:
        await bucket.delete({"app/x": None})

    async def overwrite(bucket: Objects) -> None:
        await bucket.overwrite("app/x", b"{}")

    for do, times, problem in (
        (delete, 1, "SlowDown: wait"),
        (overwrite, 1, "SlowDown: wait"),
        (_put, 2, "AccessDenied"),
    ):
        said, server = _error(_s3, do, busy, refused)

        assert problem in said
        assert len(server.asked) == times


def _parts(*statuses: tuple[int, str]) -> Answer:
    """Answer a batch."""
    parts = "".join(
        f"--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} -\r\n"
        f"x-ms-error-code: {code}\r\n\r\n"
        for status, code in statuses
    )
    kind = {"Content-Type": "multipart/mixed; boundary=b"}
    return Answer(202, kind, f"{parts}--b--\r\n".encode())


def test_deletions_of_a_batch_that_fail_alone_are_tried_again_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("anyio.sleep", sleep)
    first = _parts((202, ""), (503, "ServerBusy"), (412, "ConditionNotMet"), (404, "BlobNotFound"))

    async def delete(url: str) -> None:
        async with _azure(url) as objects:
            problems = await objects.delete(dict.fromkeys("abcd", '"x"'))
            assert {key: type(one) for key, one in problems.items()} == {"c": ChangedError}
            problems = await objects.delete({"e": None, "f": None})
            assert {k: type(v) for k, v in problems.items()} == {"e": EntryError, "f": StoreError}
            assert {k: str(v) for k, v in problems.items()} == {
                "e": "e: AuthorizationFailure",
                "f": "f: the answer of the service is malformed",
            }

    forbidden = _parts((403, "AuthorizationFailure"))
    with answering(first, _parts((202, "")), forbidden, _parts()) as server:
        anyio.run(delete, server.url)
        assert len(server.asked) == 5
    assert waits == [0, 2, 0, 2, 10]


def test_only_what_was_sent_once_is_certainly_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        del seconds

    monkeypatch.setattr("anyio.sleep", sleep)
    kinds: list[type[Exception]] = []

    async def delete(url: str) -> None:
        async with _azure(url) as objects:
            kinds.append(type((await objects.delete({"a": None, "b": None}))["b"]))
            for _ in range(2):
                with pytest.raises(StoreError, match="AuthorizationFailure") as error:
                    await objects.delete({"c": None})
                kinds.append(error.type)

    busy, no = _parts((202, ""), (503, "ServerBusy")), (403, "AuthorizationFailure")
    refused = Answer(403, {"x-ms-error-code": "AuthorizationFailure"})
    with answering(busy, _parts(no), refused, _parts((503, "ServerBusy")), refused) as server:
        anyio.run(delete, server.url)

    assert kinds == [StoreError, RefusedError, StoreError]


@pytest.mark.waits
@pytest.mark.parametrize("whole", [True, False])
def test_what_the_sdk_of_azure_has_sent_again_is_not_certainly_refused(*, whole: bool) -> None:
    kinds: list[type[Exception]] = []

    async def delete(url: str) -> None:
        async with _azure(url) as objects:
            try:
                kinds.append(type((await objects.delete({"a": None}))["a"]))
            except StoreError as error:
                kinds.append(type(error))

    code = "AuthorizationFailure"
    refused = Answer(403, {"x-ms-error-code": code}) if whole else _parts((403, code))
    with answering(Answer(500), refused) as server:
        anyio.run(delete, server.url)
        assert len(server.asked) == 2

    assert kinds == [StoreError]


def test_what_the_sdk_of_s3_has_sent_again_is_not_certainly_refused() -> None:
    refused = Answer(403, _XML, b"<Error><Code>AccessDenied</Code></Error>")

    async def delete(url: str) -> None:
        async with _s3(url) as objects:
            problems = await objects.delete({"name": '"e"'})
            assert {key: type(one) for key, one in problems.items()} == {"name": StoreError}

    with answering(Answer(500), refused) as server:
        anyio.run(delete, server.url)
        assert len(server.asked) == 2


def test_what_is_deleted_alone_is_not_refused_with_the_rest() -> None:
    refused = Answer(403, _XML, b"<Error><Code>AccessDenied</Code></Error>")

    async def delete(url: str) -> None:
        async with _s3(url) as objects:
            problems = await objects.delete({"name": '"e"', "locked": '"e"', "blob": None})
            assert {key: type(one) for key, one in problems.items()} == {
                "locked": EntryError,
                "blob": RefusedError,
            }
            with pytest.raises(RefusedError):
                await objects.delete({"blob": None})

    with answering(Answer(204), refused, refused, refused) as server:
        anyio.run(delete, server.url)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", EntryError),
        ("InvalidRequest", EntryError),  # Locked, says MinIO.
        ("InternalError", StoreError),
        ("SlowDown", StoreError),
    ],
)
def test_the_answer_for_one_object_says_whether_it_is_refused(
    code: str, kind: type[StoreError]
) -> None:
    said = f"<Error><Key>a</Key><Code>{code}</Code></Error><Deleted><Key>b</Key></Deleted>"
    answer = Answer(200, _XML, f"<DeleteResult>{said}</DeleteResult>".encode())

    async def delete(url: str) -> None:
        async with _s3(url) as objects:
            problems = await objects.delete({"a": None, "b": None})
            assert {key: type(one) for key, one in problems.items()} == {"a": kind}

    with answering(answer) as server:
        anyio.run(delete, server.url)


def test_the_token_of_an_identity_is_never_sent_without_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(azblob.KEY)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("IDENTITY_HEADER", "hush")
    with answering(Answer(200)) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/identity")
        said, service = _error(_azure, _look, Answer(200, _TAGGED))

        assert not server.asked
    assert said.startswith("account_url must begin with https")
    assert not service.asked


@pytest.mark.parametrize("method", ["get_token", "get_token_info"])
def test_a_service_gets_no_token_for_another_service_that_it_names_in_a_challenge(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.delenv(azblob.KEY)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("IDENTITY_HEADER", "hush")
    token = {"access_token": "secret", "expires_on": "9999999999", "token_type": "Bearer"}
    body = json.dumps({**token, "resource": "any"}).encode()

    async def ask() -> None:
        address = Address("account", "cache", "app", "https://127.0.0.1:1/account")
        async with azblob.open_container(address) as container:
            # The SDK asks it for the scope of a challenge.
            credential = container._client.credential
            with pytest.raises(StoreError, match="https://vault") as error:
                await getattr(credential, method)("https://vault.example/.default")
            assert "secret" not in str(error.value)

    with answering(Answer(200, {"Content-Type": "application/json"}, body)) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/identity")
        anyio.run(ask)

        assert len(server.asked) == 1
        assert "storage.azure.com" in server.asked[0]


def test_what_a_url_cannot_express_is_not_listed() -> None:
    page = _azure_page(_COMPLETE)
    dots = Answer(200, page.headers, page.body.replace(b"app/x", b"app/../other/x"))

    async def ask(url: str) -> None:
        async with _azure(url) as objects:
            assert [list(one) async for one in objects.list("app/")] == [[]]

    with answering(dots) as server:
        anyio.run(ask, server.url)


def test_what_is_archived_is_unreadable_and_not_gone() -> None:
    archived = Answer(409, {"x-ms-error-code": "BlobArchived"})

    async def ask(url: str) -> None:
        async with _azure(url) as objects:
            await _get(objects)

    with answering(archived) as server, pytest.raises(UnreadableError, match="nobody can read it"):
        anyio.run(ask, server.url)
