"""A gate between a run and its server: passes requests on, and kills the run at one of them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from threading import Event, Lock
from typing import Any
from urllib.parse import urlsplit

from tests.integration.victims import AFTER, BEFORE
from tests.stores.scripted import serving

_OF_A_CONNECTION = frozenset({"connection", "expect", "keep-alive", "transfer-encoding"})


Reply = tuple[int, dict[str, str], bytes]
"""The status of an answer, its headers by their names in lower case, and its body."""


def _truth(_what: str, true: Reply) -> Reply:
    return true


@dataclass(frozen=True)
class Kill:
    """A kill before or after a request is carried out."""

    moment: str
    number: int
    """Which request, of all or of those with a method."""
    method: str = ""


@dataclass
class Gate:
    """Knows which requests have come, and at which of them to kill whom."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    """The methods of the requests so far."""
    lie: Callable[[str, Reply], Reply] = _truth
    """Makes another answer of a true one; it also gets the method and the path with the query."""
    _kill: Kill | None = None
    _done: list[str] = field(default_factory=list)
    _process: int = 0
    _may_kill: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    def arm(self, kill: Kill | None) -> None:
        """Count anew, for a process that begins."""
        self.asked, self._done, self._kill = [], [], kill
        self._may_kill.clear()

    def aim(self, process: int) -> None:
        """Say whom to kill."""
        self._process = process
        self._may_kill.set()

    def before(self, method: str) -> None:
        """Count a request that is about to be passed on."""
        self._count(BEFORE, method, self.asked)

    def after(self, method: str) -> None:
        """Count a request that was carried out, and whose answer is about to be passed on."""
        self._count(AFTER, method, self._done)

    def _count(self, moment: str, method: str, counted: list[str]) -> None:
        with self._lock:
            counted.append(method)
            kill = self._kill
            if kill is None or kill.moment != moment or kill.method not in ("", method):
                return
            if kill.number == (counted.count(method) if kill.method else len(counted)):
                self._may_kill.wait()
                os.kill(self._process, signal.SIGKILL)


@contextmanager
def a_gate(upstream: str) -> Iterator[Gate]:
    """Open a gate to the server at a URL."""
    gate, server = Gate(), urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _pass_on(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_CONNECTION}
            gate.before(self.command)
            connection = HTTPConnection(server)
            try:
                connection.request(self.command, self.path, content, headers)
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
            gate.after(self.command)
            known = {name.lower(): value for name, value in answer.getheaders()}
            true = answer.status, known, body
            status, told, body = gate.lie(f"{self.command} {self.path}", true)
            self.send_response_only(status)
            for name, value in told.items():
                if name not in {*_OF_A_CONNECTION, "content-length"}:
                    self.send_header(name, value)
            length = told.get("content-length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _pass_on  # noqa: N815

        def handle(self) -> None:
            """Answer until the client goes, or is killed."""
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Log nothing."""

    with serving(Handler) as gate.url:
        yield gate
