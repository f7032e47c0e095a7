"""A transport for httpx2 that sends the requests of a long run by aiohttp.

A request takes half as long by it. To import it takes as long as some hundred requests, so the
first ones go by httpx2's own transport.
"""

import ssl
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from maintainer.stores.http.aiohttp_transport import AiohttpTransport

FIRST = 200
"""So many requests go by httpx2's transport."""


class Transport(httpx2.AsyncBaseTransport):
    """Sends requests without a proxy; whoever uses it bounds how many at once."""

    def __init__(self, certificates: ssl.SSLContext) -> None:
        """Trust the servers that these certificates vouch for."""
        self._certificates = certificates
        self._left = FIRST
        """How many more requests go by httpx2's transport."""
        self._first = httpx2.AsyncHTTPTransport(verify=certificates)
        self._others: AiohttpTransport | None = None
        """That of a long run."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; return the response once its head has arrived.

        Raises httpx2.TransportError; ConnectError and ConnectTimeout only if nothing was sent.
        """
        if self._left:
            self._left -= 1
            return await self._first.handle_async_request(request)
        if self._others is None:
            from maintainer.stores.http.aiohttp_transport import AiohttpTransport  # noqa: PLC0415

            self._others = AiohttpTransport(self._certificates)
        return await self._others.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._first.aclose()
        if self._others is not None:
            await self._others.aclose()
