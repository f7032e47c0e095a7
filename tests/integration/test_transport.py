"""The transport of long runs, against servers that send what a test tells them to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from maintainer.errors import StoreError
from maintainer.stores.http.client import Http
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.http.retry import RetryPolicy
from maintainer.stores.http.transport import Transport

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUTS = {"connect": 5.0, "write": 5.0, "read": 5.0}
HASTY = TIMEOUTS | {"write": 0.05, "read": 0.05}
NOT_AGAIN = RetryPolicy(attempts=1, connection_attempts=1)
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def runs_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maintainer.stores.http.transport.FIRST", 0)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(httpx2.create_ssl_context()) as opened:
        yield opened


@dataclass
class Server:
    """A server whose connections are counted."""

    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def serve(speak: Speak, certificate: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve each connection by a function."""
    served = Server()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        try:
            await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=certificate)
    port = listening.sockets[0].getsockname()[1]
    served.url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}/"
    try:
        yield served
    finally:
        listening.close()


@asynccontextmanager
async def answering(
    *answers: bytes, then_close: bool = False, step: int = 0
) -> AsyncIterator[Server]:
    """Send one answer for each request of a connection, in steps of so many bytes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            served.requests.append(await reader.readuntil(b"\r\n\r\n"))
            for start in range(0, len(answer), step or len(answer)):
                writer.write(answer[start : start + (step or len(answer))])
                await writer.drain()
                await asyncio.sleep(0)
        if not then_close:
            await reader.read()

    async with serve(speak) as served:
        yield served


async def ask(
    transport: Transport,
    url: str,
    method: str = "GET",
    timeouts: dict[str, float] = TIMEOUTS,
    **more: Any,
) -> tuple[int, bytes]:
    """Send a request; return the status and the content of the response."""
    request = httpx2.Request(method, url, extensions={"timeout": timeouts}, **more)
    response = await transport.handle_async_request(request)
    try:
        return response.status_code, b"".join([piece async for piece in response.aiter_bytes()])
    finally:
        await response.aclose()


WHOLE = {
    "with a length": OK,
    "in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    ),
    "with trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nLast: 1\r\n\r\n"
    ),
    "after others": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    + OK,
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("step", [0, 1])
async def test_an_answer_is_read_however_it_arrives_and_its_connection_is_used_again(
    transport: Transport, answer: bytes, step: int
) -> None:
    async with answering(answer, answer, step=step) as server:
        assert await ask(transport, server.url) == (200, b"ok")
        assert await ask(transport, server.url) == (200, b"ok")

        assert server.connections == 1


async def test_no_content_and_an_answer_to_head_leave_the_connection_in_order(
    transport: Transport,
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", head, head, OK) as server:
        assert await ask(transport, server.url, "DELETE") == (204, b"")
        assert await ask(transport, server.url, "HEAD") == (200, b"")
        assert await ask(transport, server.url, "HEAD") == (200, b"")
        assert await ask(transport, server.url) == (200, b"ok")

        assert server.connections == 1


async def test_a_request_is_sent_as_it_was_built(transport: Transport) -> None:
    async with answering(OK) as server:
        url = httpx2.URL(server.url).join("/caches/ü?key=a b")
        await ask(transport, str(url), headers={"Authorization": "Bearer secret"})

        head, *lines = server.requests[0].decode().splitlines()
        assert head == "GET /caches/%C3%BC?key=a%20b HTTP/1.1"
        assert f"host: {url.netloc.decode()}" in lines
        assert "authorization: Bearer secret" in lines
        assert len(lines) == 3  # The last one is empty.


ENDED_BY_CLOSING = {
    "no length": b"HTTP/1.1 200 OK\r\n\r\nok",
    "an old server": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a server that says so": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("answer", ENDED_BY_CLOSING.values(), ids=ENDED_BY_CLOSING.keys())
async def test_a_connection_that_ends_with_its_answer_is_not_used_again(
    transport: Transport, answer: bytes
) -> None:
    async with answering(answer, then_close=True) as server:
        assert await ask(transport, server.url) == (200, b"ok")
        assert await ask(transport, server.url) == (200, b"ok")

        assert server.connections == 2


BROKEN = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half the content": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok",
    "half the chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a switch to another": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    ),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a length below nothing": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nok\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nA: b\r\n\0: c\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000,
    "a header without end": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 600_000,
    "trailers without end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 100_000
    ),
    "hints without end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 30_000,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_whole_answer_is_an_error_after_which_it_may_have_been_carried_out(
    transport: Transport, answer: bytes
) -> None:
    async with answering(answer or b"\r\n", then_close=True) as server:
        with pytest.raises(httpx2.TransportError) as caught:
            await ask(transport, server.url)

    assert not isinstance(caught.value, (httpx2.ConnectError, httpx2.ConnectTimeout))


UNASKED = {
    "a second answer": ("GET", OK + OK, b"ok"),
    "more content": ("GET", OK + b"k", b"ok"),
    "content after a head": ("HEAD", OK, b""),
}


@pytest.mark.parametrize(("method", "answer", "content"), UNASKED.values(), ids=UNASKED.keys())
async def test_what_follows_an_answer_is_never_the_answer_to_the_next_request(
    transport: Transport, method: str, answer: bytes, content: bytes
) -> None:
    async with answering(answer, b"HTTP/1.1 500 Wrong\r\n\r\n") as server:
        for _ in range(2):
            try:
                assert await ask(transport, server.url, method) == (200, content)
            except httpx2.RemoteProtocolError:
                break


async def test_a_connection_that_the_server_has_closed_is_not_used(transport: Transport) -> None:
    async with answering(OK, then_close=True) as server:
        for _ in range(5):
            assert await ask(transport, server.url) == (200, b"ok")
            await asyncio.sleep(0.01)

        assert server.connections == 5


async def test_an_answer_that_was_not_read_whole_ends_its_connection(transport: Transport) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + bytes(10_000_000)
    async with answering(large) as server:
        request = httpx2.Request("GET", server.url, extensions={"timeout": TIMEOUTS})
        response = await transport.handle_async_request(request)
        first = await anext(aiter(response.aiter_bytes()))
        await response.aclose()

        assert len(first) < 1_000_000
        assert await ask(transport, server.url) == (200, bytes(10_000_000))
        assert server.connections == 2


async def test_a_large_answer_waits_until_it_is_read(transport: Transport) -> None:
    size = 50_000_000
    sent = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    async with serve(speak) as server:
        request = httpx2.Request("GET", server.url, extensions={"timeout": TIMEOUTS})
        response = await transport.handle_async_request(request)
        await asyncio.sleep(0.2)
        assert sent < size / 2  # What the system holds of it, and a few pieces.
        assert sum([len(piece) async for piece in response.aiter_bytes()]) == size
        await response.aclose()


async def test_a_large_request_arrives_whole(transport: Transport) -> None:
    content = bytes(range(256)) * 40_000
    arrived = b""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await reader.readuntil(b"\r\n\r\n")
        arrived = await reader.readexactly(len(content))
        writer.write(OK)
        await reader.read()

    async with serve(speak) as server:
        assert await ask(transport, server.url, "PUT", content=content) == (200, b"ok")

    assert arrived == content


async def test_a_refusal_of_a_large_request_is_read_before_all_was_sent(
    transport: Transport,
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.1)

    async with serve(speak) as server:
        assert await ask(transport, server.url, "PUT", content=bytes(10**8)) == (413, b"")


SILENT = {
    "no head": (b"", "GET", httpx2.ReadTimeout),
    "no content": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "GET", httpx2.ReadTimeout),
}


@pytest.mark.parametrize(("answer", "method", "error"), SILENT.values(), ids=SILENT.keys())
async def test_a_silent_server_is_given_up(
    transport: Transport, answer: bytes, method: str, error: type[Exception]
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await asyncio.sleep(1)

    content = bytes(10**8) if method == "PUT" else None
    async with serve(speak) as server:
        with pytest.raises(error):
            await ask(transport, server.url, method, HASTY, content=content)


async def test_a_host_that_does_not_answer_was_sent_nothing(transport: Transport) -> None:
    async with serve(lambda *_: asyncio.sleep(0)) as server:
        gone = server.url
    with pytest.raises(httpx2.ConnectError):
        await ask(transport, gone)

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serve(say_nothing) as server:  # It speaks no TLS.
        secure = server.url.replace("http:", "https:")
        with pytest.raises(httpx2.ConnectTimeout):
            await ask(transport, secure, timeouts=TIMEOUTS | {"connect": 0.05})


async def test_each_address_of_a_host_is_tried(transport: Transport) -> None:
    async with answering(OK) as server:
        url = server.url.replace("127.0.0.1", "localhost")  # Which may be ::1, too.
        assert await ask(transport, url) == (200, b"ok")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y", "a\rX", "a\0"])
async def test_a_header_cannot_bring_another_one(transport: Transport, value: str) -> None:
    async with answering(OK) as server:
        with pytest.raises(httpx2.LocalProtocolError):
            await ask(transport, server.url, headers={"Authorization": value})

        assert server.requests == []


async def test_only_the_web_is_asked(transport: Transport) -> None:
    with pytest.raises(httpx2.UnsupportedProtocol):
        await ask(transport, "ftp://127.0.0.1/")


def a_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return what a server at 127.0.0.1 proves itself by, and the file by which to trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    file, secret = folder / "certificate.pem", folder / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file, secret)
    return context, file


async def test_a_certificate_must_be_trusted_and_be_that_of_the_host(tmp_path: Path) -> None:
    server_side, file = a_certificate(tmp_path)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
        await reader.read()

    async with serve(speak, server_side) as server:
        async with Transport(ssl.create_default_context(cafile=file)) as trusting:
            assert await ask(trusting, server.url) == (200, b"ok")
            assert await ask(trusting, server.url) == (200, b"ok")
            assert server.connections == 1
            with pytest.raises(httpx2.ConnectError):
                await ask(trusting, server.url.replace("127.0.0.1", "localhost"))
        async with Transport(httpx2.create_ssl_context()) as wary:
            with pytest.raises(httpx2.ConnectError):
                await ask(wary, server.url)


async def test_only_the_requests_of_a_long_run_go_by_aiohttp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("maintainer.stores.http.transport.FIRST", 2)
    context = httpx2.create_ssl_context()
    async with Transport(context) as transport, answering(*[OK] * 5) as server:
        for _ in range(4):
            assert await ask(transport, server.url) == (200, b"ok")

        assert server.connections == 2  # One by each.


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_no_request_is_repeated_without_being_counted(
    transport: Transport, method: str
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.requests.append(await reader.readuntil(b"\r\n\r\n"))

    async with serve(speak) as server:
        with pytest.raises(httpx2.TransportError):
            await ask(transport, server.url, method)

        assert len(server.requests) == 1


async def test_a_redirect_may_be_as_long_as_signed_urls_are(transport: Transport) -> None:
    place = "https://example.com/?signature=" + "a" * 20_000
    head = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    async with answering(head.encode()) as server:
        request = httpx2.Request("GET", server.url, extensions={"timeout": TIMEOUTS})
        response = await transport.handle_async_request(request)
        await response.aclose()

    assert response.headers["Location"] == place


async def test_a_user_in_a_url_is_never_sent(transport: Transport) -> None:
    async with answering(OK) as server:
        await ask(transport, server.url.replace("http://", "http://user:secret@"))

        assert b"authorization" not in server.requests[0].lower()


@pytest.mark.parametrize("first", [200, 0], ids=["httpcore", "aiohttp"])
async def test_a_refused_certificate_is_told_at_once_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: int
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("maintainer.stores.http.transport.FIRST", first)
    server_side, _ = a_certificate(tmp_path)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read()

    async with serve(speak, server_side) as server, Http(RequestLog()) as http:
        with pytest.raises(StoreError, match=r"failed: TLS, CERTIFICATE_VERIFY_FAILED$"):
            await http.download(server.url, limit=100)

    assert "retrying" not in caplog.text


@pytest.mark.parametrize("encoding", [b"identity", b"gzip", b"chunked, identity"])
async def test_a_download_that_only_the_end_of_its_connection_ends_is_not_whole(
    encoding: bytes,
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + encoding + b"\r\n\r\nok"
    async with answering(head, then_close=True) as server, Http(RequestLog(), NOT_AGAIN) as http:
        with pytest.raises(StoreError):
            await http.download(server.url, limit=100)
