"""Checks every request and adds the security headers of every response."""

import re
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD")
_CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_POLICY = "Content-Security-Policy"
_HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[]*))(?::[0-9]*)?")
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def policy(*, has_form: bool = False, **sources: str) -> dict[str, str]:
    """Return the header of a page that may use inline content, such as `style="'sha256-…'"`.

    Nothing is loaded from other hosts. Without sources, a page cannot even have a style. A form may
    only lead to this server.
    """
    closed = _CLOSED.replace("form-action 'none'", "form-action 'self'") if has_form else _CLOSED
    opened = "".join(f"; {name}-src {source}" for name, source in sources.items())
    return {_POLICY: f"{closed}{opened}"}


class Guard:
    """Refuses requests that are not GET or HEAD, and requests for unknown host names.

    A malicious page can make a browser send requests to a name that resolves to this server (DNS
    rebinding). So the host must be a loopback name, our address, or a configured name.
    """

    def __init__(self, app: ASGIApp, *, host: str, hosts: Collection[str]) -> None:
        """Guard `app`, which listens on the address `host` and also has the names `hosts`."""
        self._app = app
        self._address = ip_address(host)
        self.hosts = frozenset(name.lower() for name in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault(_POLICY, _CLOSED)
            await send(message)

        app = self._refusal(scope) or self._app
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        if scope["method"] not in _METHODS:
            allowed = {"Allow": ", ".join(_METHODS)}
            return PlainTextResponse("this server is read-only\n", 405, headers=allowed)
        if not self._is_ours(Headers(scope=scope).get("host", "")):
            return PlainTextResponse(
                "unknown host name: add it to `hosts` in the configuration\n", 421
            )
        return None

    def _is_ours(self, header: str) -> bool:
        name = _name(header.lower())
        if name == "localhost" or name in self.hosts:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        # A server on all addresses does not know them, and DNS rebinding needs a name.
        return address.is_loopback or address == self._address or self._address.is_unspecified


def _name(header: str) -> str:
    """Return the host without its port, and without the brackets of an IPv6 address.

    It is empty if the header has another form.
    """
    match = _HOST.fullmatch(header)
    return (match["address"] or match["name"] or "") if match else ""
