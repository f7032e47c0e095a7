"""A real HTTP server on loopback that answers what a test tells it to, and remembers requests."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import msgspec


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What to answer; without a length of its own, the right one is sent."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """What to announce instead of the length; -1 announces none."""
    reset: bool = False
    """Reset the connection instead of answering."""


Script = Callable[[Request], Reply]


def json(value: object, status: int = 200, **headers: str) -> Reply:
    """Answer JSON; `retry_after="1"` becomes the header `retry-after`."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, msgspec.json.encode(value), {"Content-Type": "application/json"} | named)


def html(status: int = 200) -> Reply:
    """Answer the page of a proxy."""
    return Reply(status, b"<html><h1>Hello</h1></html>", {"Content-Type": "text/html"})


RESET = Reply(reset=True)


class Server:
    """Answers by the script of a path's last part, one reply after the other; the last stays."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._scripts: dict[str, Script] = {}

    def on(self, name: str, *replies: Reply | Script) -> None:
        """Script what a path that ends in `name` answers."""
        left = list(replies)

        def script(request: Request) -> Reply:
            reply = left.pop(0) if len(left) > 1 else left[0]
            return reply if isinstance(reply, Reply) else reply(request)

        self._scripts[name] = script

    def asked(self, name: str = "") -> list[Request]:
        """Return the requests whose path ends in `name`."""
        return [request for request in self.requests if request.path.endswith(name)]

    def reply(self, request: Request) -> Reply:
        """Answer, and remember."""
        self.requests.append(request)
        script = self._scripts.get(request.path.rsplit("/", 1)[-1])
        return script(request) if script else Reply(599, b"not in the script")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Do nothing: clients that have had enough just leave."""


@contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[Server]:
    """Start a server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, url.path, parse_qs(url.query), headers, body)
            _send(self, server.reply(request))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    listener = _Listener(("127.0.0.1", 0), Handler)
    server = Server(f"http://{host}:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    if reply.reset:
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
        handler.close_connection = True
        return
    handler.send_response(reply.status)
    length = len(reply.body) if reply.length is None else reply.length
    if length >= 0:
        handler.send_header("Content-Length", str(length))
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(reply.body)
    handler.wfile.flush()
    handler.close_connection = reply.length is not None
