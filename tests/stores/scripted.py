"""A server that gives prepared answers, whatever is asked; the last one for ever."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Scripted:
    """The server."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self.url = ""
        self.asked: list[str] = []
        """The paths that were asked for."""
        self._answers = answers

    def answer(self, path: str) -> Answer:
        """Return the next answer."""
        number = min(len(self.asked), len(self._answers) - 1)
        self.asked.append(path)
        return self._answers[number]


@contextmanager
def answering(*answers: Answer) -> Iterator[Scripted]:
    """Serve some answers."""
    scripted = Scripted(answers)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            one = scripted.answer(self.path)
            self.send_response(one.status)
            for name, value in {"Content-Length": str(len(one.body)), **one.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(one.body)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Log nothing."""

    with serving(Handler) as scripted.url:
        yield scripted


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on loopback; return the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
