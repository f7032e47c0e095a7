"""What we use of uvicorn beyond its documentation, and what our web server makes of it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import anyio
import httpx2
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from maintainer.webserver import TRANSPORT, Connection, listen, serving, url_of
from tests.integration.service import PATIENCE as LONG
from tests.integration.service import Place, wait_until

Address = tuple[str, int]
PATIENCE = 0.6
"""Seconds after which an idle connection is cut off here."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the names in the request's state, after half as long as a connection may idle."""
    await anyio.sleep(PATIENCE / 2)
    await PlainTextResponse(",".join(scope["state"]))(scope, receive, send)


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with serving(app, listening := listen("127.0.0.1", 0), patience=PATIENCE):
        host, port = listening.getsockname()
        yield host, port


@contextmanager
def connected(address: Address) -> Iterator[socket.socket]:
    with socket.create_connection(address, LONG) as connection:
        yield connection


# Pins: these fail if uvicorn changes what we use of it.


def test_pin_uvicorn_constructs_the_configured_protocol_with_keywords() -> None:
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    state = uvicorn.Server(config).server_state

    async def make() -> Connection:
        return Connection(patience=1.0, config=config, server_state=state, app_state={}, _loop=None)

    connection = anyio.run(make)

    assert connection.app_state == {}
    assert connection.cycle is None


def test_pin_uvicorn_copies_the_state_of_a_connection_to_each_request(address: Address) -> None:
    with httpx2.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        assert [client.get("/").text for _ in range(2)] == [TRANSPORT, TRANSPORT]


def test_pin_uvicorn_counts_connections_and_leaves_signals_alone_on_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[int] = []
    made: list[uvicorn.Server] = []
    make = uvicorn.Server.__init__

    def keep(server: uvicorn.Server, config: uvicorn.Config) -> None:
        make(server, config)
        made.append(server)

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        counted.append(len(made[0].server_state.connections))
        await PlainTextResponse("x")(scope, receive, send)

    monkeypatch.setattr(uvicorn.Server, "__init__", keep)
    # `signal.signal` raises ValueError on any thread but the main one.
    with serving(count, listening := listen("127.0.0.1", 0)):
        assert httpx2.get(url_of(listening)).text == "x"

    assert counted == [1]
    assert made[0].server_state.connections == set()


# Connections that ask for nothing do not keep those out that ask.


def _is_cut_off(connection: socket.socket) -> bool:
    """Wait until the other side closes."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_connection_that_asks_for_nothing_is_cut_off(address: Address) -> None:
    with connected(address) as connection:
        assert _is_cut_off(connection)


def test_a_request_that_never_becomes_whole_is_cut_off_however_much_comes(
    address: Address,
) -> None:
    with connected(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")

        with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012
            for _ in range(int(LONG / 0.05)):
                connection.sendall(b"X-More: and more\r\n")
                time.sleep(0.05)


def test_whoever_goes_on_asking_is_not_cut_off_though_the_answers_take_long(
    address: Address,
) -> None:
    client = HTTPConnection(*address, timeout=LONG)
    client.connect()
    client.auto_open = 0  # so that it does not connect again
    with closing(client):
        for _ in range(4):
            client.request("GET", "/")
            assert client.getresponse().read() == TRANSPORT.encode()


MOST = 4
"""So many connections are served at once here."""


class Held:
    """An application that answers once it may, and what asks whether it is alive at once."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_answer = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if "slow" in scope["path"]:
            self.begun += 1
            await anyio.to_thread.run_sync(self.may_answer.wait, LONG)
        await PlainTextResponse("done")(scope, receive, send)


@contextmanager
def _held() -> Iterator[tuple[Held, Address]]:
    """Serve few connections at once, and answer what is slow at the end."""
    held = Held()
    listening = listen("127.0.0.1", 0)
    with serving(held, listening, max_connections=MOST, always={"/alive", "/alive/slow"}):
        host, port = listening.getsockname()
        try:
            yield held, (host, port)
        finally:
            held.may_answer.set()


def _ask(address: Address, path: str) -> int:
    client = HTTPConnection(*address, timeout=LONG)
    with closing(client):
        client.request("GET", path)
        return client.getresponse().status


def _ask_slowly(stack: ExitStack, address: Address, held: Held, path: str = "/slow") -> None:
    """Send a request whose answer takes long."""
    begun = held.begun
    connection = stack.enter_context(connected(address))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    wait_until(lambda: held.begun > begun)


def test_beyond_the_limit_those_that_have_asked_for_nothing_for_longest_are_cut_off() -> None:
    with _held() as (_, address), ExitStack() as stack:
        idle = [stack.enter_context(connected(address)) for _ in range(3 * MOST)]

        assert _ask(address, "/") == 200

        for connection in idle[: 2 * MOST + 1]:
            connection.settimeout(LONG)
            assert _is_cut_off(connection)
        idle[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            idle[-1].recv(1)


def test_while_as_many_ask_as_may_pages_are_refused_and_it_says_that_it_is_alive() -> None:
    with _held() as (held, address), ExitStack() as stack:
        for _ in range(MOST):
            _ask_slowly(stack, address, held)

        assert _ask(address, "/") == 503
        assert _ask(address, "/alive") == 200


def test_beyond_twice_the_limit_nobody_is_let_in() -> None:
    with _held() as (held, address), ExitStack() as stack:
        for _ in range(2 * MOST):
            _ask_slowly(stack, address, held, "/alive/slow")

        assert _is_cut_off(stack.enter_context(connected(address)))


@pytest.mark.waits
def test_idle_connections_keep_nobody_out_of_the_service(tmp_path: Path) -> None:
    place = Place(tmp_path, {"MAINTAINER_STORE": f"local:{tmp_path}"})
    place.configure("")
    with place.serving() as service, ExitStack() as stack:
        host, _, port = service.url.removeprefix("http://").rstrip("/").partition(":")
        for _ in range(200):
            stack.enter_context(connected((host, int(port))))

        assert service.get("healthz").status_code == httpx2.codes.OK
        assert service.get("").status_code == httpx2.codes.OK
        assert len(list(Path(f"/proc/{service.process.pid}/fd").iterdir())) < 120


# Its end.


def test_it_closes_its_socket_when_nobody_is_connected() -> None:
    with serving(app, listening := listen("127.0.0.1", 0)):
        address = listening.getsockname()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_it_answers_the_request_under_way_before_it_stops() -> None:
    begun = threading.Event()
    answers: list[str] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await anyio.sleep(0.2)
        await PlainTextResponse("done")(scope, receive, send)

    listening = listen("127.0.0.1", 0)
    url = url_of(listening)
    client = threading.Thread(target=lambda: answers.append(httpx2.get(url).text))
    with serving(slow, listening):
        client.start()
        assert begun.wait(LONG)
    client.join(LONG)

    assert answers == ["done"]
