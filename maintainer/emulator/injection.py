"""Injects the faults of a plan into an application that does not know about them."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final

import msgspec
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maintainer.emulator.blobs import storage_error
from maintainer.emulator.faults import NO_FAULTS, Chooser, Fault, FaultPlan
from maintainer.emulator.requests import ARTIFACT_CACHE, Request
from maintainer.emulator.web import json_response
from maintainer.webserver import TRANSPORT

REQUEST: Final = "maintainer.request"
"""The key of the Request in a scope."""
FAULT: Final = "maintainer.fault"
"""The key of the kind of fault in a scope."""
NOTIFY: Final = "maintainer.notify"
"""The key of a function in a scope: call it before the client can notice that no response comes."""

_PAGE = (
    "<!DOCTYPE html><html><head><title>Unicorn!</title></head><body>Come back later</body></html>"
)

_STORAGE_ERRORS: Final = {
    "expired": (HTTPStatus.FORBIDDEN, "AuthenticationFailed", "The signature has expired."),
    "no-content": (HTTPStatus.NOT_FOUND, "BlobNotFound", "The specified blob does not exist."),
}


class Faults:
    """An ASGI middleware that injects faults."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._chooser = Chooser(NO_FAULTS)

    def inject(self, plan: FaultPlan) -> None:
        """Replace the plan; its counts start at zero."""
        self._chooser = Chooser(plan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, with or without a fault."""
        fault = self._chooser.choose(scope[REQUEST])
        if fault is None:
            await self._app(scope, receive, send)
            return
        scope[FAULT] = fault.kind
        await _Faulty(self._app, fault, scope, receive, send).serve()


class _Faulty:
    """One request that a fault hits."""

    def __init__(
        self, app: ASGIApp, fault: Fault, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.app = app
        self.fault = fault
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request: Request = scope[REQUEST]

    async def serve(self) -> None:
        handler = self.HANDLERS.get(self.fault.kind)
        if handler is None:
            await self.answer(self.fake_response())
        else:
            await handler(self)

    async def answer(self, response: Response) -> None:
        response.headers.update(_headers(self.fault))
        await response(self.scope, self.receive, self.send)

    def fake_response(self) -> Response:
        """Return the response to a request that is not carried out."""
        fault = self.fault
        if fault.kind == "html":
            return HTMLResponse(_PAGE)
        if fault.kind == "wrong-shape":
            return Response(fault.body, media_type="application/json")
        if fault.kind == "miss":
            if self.request.path.startswith(ARTIFACT_CACHE):
                return Response(status_code=HTTPStatus.NO_CONTENT)
            return json_response({"ok": False, "signed_download_url": "", "matched_key": ""})
        if fault.kind in _STORAGE_ERRORS:
            return storage_error(*_STORAGE_ERRORS[fault.kind])
        return _error(fault.status)

    async def reset(self) -> None:
        self.scope[NOTIFY](None)
        transport = self.scope["state"][TRANSPORT]
        connection = transport.get_extra_info("socket")
        # Without lingering, closing the connection resets it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await self.wait_for_disconnect()

    async def stall(self) -> None:
        self.scope[NOTIFY](None)
        try:
            await asyncio.wait_for(self.wait_for_disconnect(), self.fault.seconds)
        except TimeoutError:
            await self.reset()

    async def wait_for_disconnect(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def store_but_fail(self) -> None:
        await self.carry_out()
        await self.answer(_error(self.fault.status))

    async def drop_response(self) -> None:
        await self.carry_out()
        await self.reset()

    async def answer_gone(self) -> None:
        await self.carry_out()
        await self.answer(_error(HTTPStatus.NOT_FOUND))

    async def carry_out(self) -> None:
        async def discard(_: Message) -> None: ...

        await self.app(self.scope, self.receive, discard)

    async def truncate(self) -> None:
        left: int | None = None

        async def send_half(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = _content_length(message) // 2
                await self.send(message)
            elif left:
                body = message.get("body", b"")[:left]
                left -= len(body)
                await self.send({"type": "http.response.body", "body": body, "more_body": True})

        await self.app(self.scope, self.receive, send_half)
        # The transport still sends what is already written.
        self.scope["state"][TRANSPORT].close()
        await self.wait_for_disconnect()

    async def alter_page(self) -> None:
        start: Message = {}
        content = bytearray()

        async def keep(message: Message) -> None:
            start.update(message if message["type"] == "http.response.start" else {})
            content.extend(message.get("body", b""))

        await self.app(self.scope, self.receive, keep)
        if start["status"] == HTTPStatus.OK and self.request.kind == "list":
            page = msgspec.json.decode(content)
            _alter_page(self.fault, page)
            await self.answer(json_response(page))
        else:
            await self.send(start)
            await self.send({"type": "http.response.body", "body": bytes(content)})

    async def add_headers(self) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(k.encode(), v.encode()) for k, v in _headers(self.fault).items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await self.send(message)

        await self.app(self.scope, self.receive, send_more)

    HANDLERS: ClassVar[dict[str, Callable[["_Faulty"], Awaitable[None]]]] = {
        "reset": reset,
        "stall": stall,
        "stored-but-failed": store_but_fail,
        "lost-answer": drop_response,
        "gone": answer_gone,
        "truncated": truncate,
        "repeat": alter_page,
        "omit": alter_page,
        "total": alter_page,
        "headers": add_headers,
    }


def _alter_page(fault: Fault, page: dict[str, Any]) -> None:
    entries = page["actions_caches"]
    if fault.kind == "total":
        page["total_count"] += fault.delta
    elif entries and fault.kind == "repeat":
        entries[-1] = entries[0]
    elif entries:
        del entries[0]


def _error(status: int) -> Response:
    """Return an error that each of the protocols could return."""
    message = HTTPStatus(status).phrase
    return json_response({"code": "unavailable", "msg": message, "message": message}, status)


def _headers(fault: Fault) -> dict[str, str]:
    headers: dict[str, str] = dict(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if fault.rate_limit_reset is not None:
        headers["x-ratelimit-remaining"] = "0"
        headers["x-ratelimit-reset"] = str(int(time.time()) + fault.rate_limit_reset)
    return headers


def _content_length(message: Message) -> int:
    return int(dict(message["headers"]).get(b"content-length", 0))
