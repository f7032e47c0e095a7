"""Shows every request to observers: before it is carried out, and after."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import parse_qs

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maintainer.decoding import JSON_ERRORS
from maintainer.emulator.injection import FAULT, NOTIFY, REQUEST
from maintainer.emulator.requests import Observer, Request, classify, id_in
from maintainer.emulator.state import ActionsCache
from maintainer.emulator.web import MAX_JSON

_KEY_IN_BODY = {"look-up", "reserve", "finalize"}


class _Named(msgspec.Struct):
    key: str | None = None


class Watch:
    """An ASGI middleware that calls observers with each request and its result."""

    def __init__(self, app: ASGIApp, cache: ActionsCache) -> None:
        self._app = app
        self._cache = cache
        self.before: Observer | None = None
        self.after: Observer | None = None
        self.count = 0
        self.failure: Exception | None = None
        """The first exception of an observer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request between its two observers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.count += 1
        number = self.count
        kind = classify(scope["method"], scope["path"])
        body: list[Message] = []
        if kind in _KEY_IN_BODY and scope["method"] == "POST":
            body = await _read_ahead(receive)
            if body[-1]["type"] == "http.disconnect":
                return  # The client went away before it had sent all of it.
        request = Request(number, kind, scope["method"], scope["path"], self._key(scope, body))
        self._call(self.before, request)
        notified = False

        def notify(status: int | None) -> None:
            nonlocal notified
            if not notified:
                self._call(self.after, replace(request, status=status, fault=scope.get(FAULT)))
            notified = True

        # The state has changed when the response starts, and the client cannot have reacted yet.
        async def send_and_notify(message: Message) -> None:
            if message["type"] == "http.response.start":
                notify(int(message["status"]))
            await send(message)

        scope.update({REQUEST: request, NOTIFY: notify})
        try:
            await self._app(scope, _replay(body, receive), send_and_notify)
        finally:
            notify(None)

    def _key(self, scope: Scope, body: list[Message]) -> str | None:
        if body:
            try:
                content = b"".join(message.get("body", b"") for message in body)
                named = msgspec.json.decode(content, type=_Named).key
            except JSON_ERRORS:
                named = None
            if named is not None:
                return named
        query: bytes = scope["query_string"]
        if keys := parse_qs(query.decode("ascii", "replace")).get("keys"):
            return keys[0]
        blob_id = id_in(scope["path"])
        if blob_id is None:
            return None
        found = self._cache.get(blob_id) or self._cache.upload(blob_id)
        return found.key if found else None

    def _call(self, observer: Observer | None, request: Request) -> None:
        if observer is None:
            return
        try:
            observer(request)
        except Exception as error:  # noqa: BLE001 - raised when the server stops
            self.failure = self.failure or error


async def _read_ahead(receive: Receive) -> list[Message]:
    """Read a body up to the maximum size of JSON; the rest is read later."""
    messages: list[Message] = []
    size = 0
    while size <= MAX_JSON:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return messages


def _replay(messages: list[Message], receive: Receive) -> Callable[[], Awaitable[Message]]:
    ahead = list(messages)

    async def replayed() -> Message:
        return ahead.pop(0) if ahead else await receive()

    return replayed
