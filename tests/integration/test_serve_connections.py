"""Connections that ask for nothing do not keep those out that ask."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import anyio
import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from maintainer.serve.server import ImpatientProtocol
from tests.integration.service import PATIENCE, Place, wait_until

Address = tuple[str, int]


class Hasty(ImpatientProtocol):
    """So that the tests are quick."""

    patience = 0.6


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    """Serve one page that takes half as long as a connection may last."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(Hasty.patience / 2)
        await PlainTextResponse("x")(scope, receive, send)

    config = uvicorn.Config(app, http=Hasty, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        wait_until(lambda: server.started)
        host, port = listening.getsockname()
        yield host, port
        server.should_exit = True
        thread.join()


@contextmanager
def connected(address: Address) -> Iterator[socket.socket]:
    with socket.create_connection(address, PATIENCE) as connection:
        yield connection


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
            for _ in range(int(PATIENCE / 0.05)):
                connection.sendall(b"X-More: and more\r\n")
                time.sleep(0.05)


def test_whoever_goes_on_asking_is_not_cut_off_though_the_answers_take_long(
    address: Address,
) -> None:
    client = HTTPConnection(*address, timeout=PATIENCE)
    client.connect()
    client.auto_open = 0  # so that it does not connect again
    with closing(client):
        for _ in range(4):
            client.request("GET", "/")
            assert client.getresponse().read() == b"x"


@pytest.mark.soak
def test_idle_connections_do_not_keep_probes_out_for_long(tmp_path: Path) -> None:
    place = Place(tmp_path, {"MAINTAINER_STORE": f"local:{tmp_path}"})
    place.configure("")
    with place.serving() as service, ExitStack() as stack:
        host, _, port = service.url.removeprefix("http://").rstrip("/").partition(":")
        for _ in range(64):
            stack.enter_context(connected((host, int(port))))
        assert service.get("healthz").status_code == httpx.codes.SERVICE_UNAVAILABLE

        wait_until(lambda: service.get("healthz").status_code == httpx.codes.OK)
