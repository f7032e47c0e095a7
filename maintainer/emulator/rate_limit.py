"""A rate limit for the REST API, as GitHub sets one for each token.

Source: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

import time
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maintainer.emulator.web import json_response

_REST = ("/repos/", "/orgs/", "/installation/")


@dataclass(slots=True)
class _Window:
    reset_at: float
    used: int = 0


class RateLimit:
    """An ASGI middleware that refuses requests beyond a limit; by default there is none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._windows: dict[str, _Window] = {}
        self._most: int | None = None
        self._seconds = 3_600.0
        self.refused = 0
        """How many requests were beyond the limit."""
        self.resets = 0
        """How often a limit began anew."""

    def limit(self, most: int, seconds: float) -> None:
        """Allow each token so many requests, which begin anew after so many seconds."""
        self._most, self._seconds, self.refused = most, seconds, 0
        self._windows.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, if it is not beyond the limit."""
        if self._most is None or not scope["path"].startswith(_REST):
            await self._app(scope, receive, send)
            return
        now = time.time()
        token = Headers(scope=scope).get("authorization", "")
        window = self._windows.get(token)
        if window is None or window.reset_at <= now:
            self.resets += window is not None
            window = self._windows[token] = _Window(now + self._seconds)
        window.used += 1
        headers = {
            "x-ratelimit-limit": str(self._most),
            "x-ratelimit-remaining": str(max(0, self._most - window.used)),
            "x-ratelimit-reset": str(int(window.reset_at) + 1),
        }
        if window.used > self._most:
            self.refused += 1
            body = {"message": "API rate limit exceeded"}
            await json_response(body, HTTPStatus.FORBIDDEN, headers=headers)(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in headers.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, send_more)
