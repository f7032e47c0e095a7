"""A proxy in the emulator: what it is asked, and what it answers, can be changed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maintainer.emulator.injection import REQUEST
from tests.integration.world import World, a_world


@dataclass(frozen=True)
class Asked:
    """A request."""

    kind: str
    method: str
    key: str
    query: dict[str, list[str]]

    @property
    def is_recheck(self) -> bool:
        """Whether a run asks, before deletions, what builds have done since it began."""
        return self.kind == "list" and "key" in self.query


@dataclass(frozen=True)
class Answered:
    """An answer; headers with lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    def saying(self, value: object) -> "Answered":
        """Return the same answer with another JSON document."""
        return replace(self, body=json.dumps(value).encode())


@dataclass
class Liar:
    """Passes requests on, and may answer in place of the service, or change what it answers."""

    app: ASGIApp
    instead: Callable[[Asked], Answered | None] = lambda _: None
    """Returns an answer to a request that is then not carried out; or None."""
    lie: Callable[[Asked, Answered], Answered] = lambda _, true: true
    """Returns what is answered in place of the truth."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = scope[REQUEST]
        query = parse_qs(scope["query_string"].decode())
        asked = Asked(request.kind, scope["method"], request.key or "", query)
        said = self.instead(asked)
        if said is None:
            said = self.lie(asked, await self._carry_out(scope, receive))
        headers = said.headers | {"content-length": str(len(said.body))}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": said.status, "headers": raw})
        await send({"type": "http.response.body", "body": said.body})

    async def _carry_out(self, scope: Scope, receive: Receive) -> Answered:
        start: dict[str, Any] = {}
        content = bytearray()
        has_ended = False

        async def read() -> Message:
            nonlocal has_ended
            if has_ended:
                await anyio.sleep_forever()  # The client waits for the answer.
            message = await receive()
            has_ended = not message.get("more_body", False)
            return message

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            content.extend(message.get("body", b""))

        await self.app(scope, read, keep)
        headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Answered(start["status"], headers, bytes(content))


@contextmanager
def a_lying_world(folder: Path) -> Iterator[tuple[World, Liar]]:
    """Serve a cache that can lie."""
    with a_world(folder) as world:
        watch = world.running._emulator.watch
        watch._app = liar = Liar(watch._app)
        yield world, liar


def answer(status: int, text: str = "", **headers: str) -> Answered:
    """Return an answer; headers are named with underscores."""
    return Answered(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, text.encode()
    )


_Page = dict[str, Any]
_Lie = Callable[[Asked, Answered], Answered]


def of_lists(change: Callable[[_Page], _Page]) -> _Lie:
    """Change each page of each list."""

    def lie(asked: Asked, true: Answered) -> Answered:
        is_page = asked.kind == "list" and true.status == 200
        return true.saying(change(json.loads(true.body))) if is_page else true

    return lie


def of_entries(change: Callable[[dict[str, Any]], object]) -> _Lie:
    """Change each entry of each list."""

    def change_all(page: _Page) -> _Page:
        for one in page["actions_caches"]:
            change(one)
        return page

    return of_lists(change_all)


def without(key: str) -> _Lie:
    """Leave an entry out of each list, and count it not."""

    def leave_out(page: _Page) -> _Page:
        shown = [one for one in page["actions_caches"] if one["key"] != key]
        hidden = len(page["actions_caches"]) - len(shown)
        return {"total_count": page["total_count"] - hidden, "actions_caches": shown}

    return of_lists(leave_out)
