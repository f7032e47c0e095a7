"""A transport for httpx2 that sends requests by aiohttp, without a proxy. Imported by long runs."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from io import BytesIO

import aiohttp
import httpx2
from yarl import URL

_MAX_HEAD = 100 * 1024
"""Bytes of a header of a response, as for httpx2; aiohttp's 8 kB are less than some redirects."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests over connections that stay open.

    It opens a connection for each request that is sent at once with others; whoever uses it bounds
    how many these are.
    """

    def __init__(self, certificates: ssl.SSLContext) -> None:
        """Trust the servers that these certificates vouch for."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=certificates, limit=0),
            auto_decompress=False,
            max_line_size=_MAX_HEAD,
            max_field_size=_MAX_HEAD,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_send_once,),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; return the response once its head has arrived.

        Raises httpx2.TransportError; ConnectError and ConnectTimeout only if nothing was sent.
        """
        timeouts: dict[str, float] = request.extensions["timeout"]
        # aiohttp would send a user in the URL along as a password; httpx2 sends headers only.
        url = request.url.copy_with(userinfo=b"") if request.url.userinfo else request.url
        with _errors_of_httpx():
            response = await self._session.request(
                request.method,
                URL(str(url), encoded=True),
                headers=request.headers.multi_items(),
                data=BytesIO(request.content) if request.content else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    sock_connect=timeouts["connect"], sock_read=timeouts["read"]
                ),
            )
        if response.status < HTTPStatus.OK:
            response.close()
            raise httpx2.RemoteProtocolError("another protocol")
        return httpx2.Response(
            response.status, headers=response.raw_headers, stream=_Content(response)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _send_once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request once: aiohttp would repeat a deletion whose answer was lost."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise httpx2.ReadError("") from error


class _Content(httpx2.AsyncByteStream):
    """The content of a response. Whoever has it must close it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for piece in self._response.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        """Keep the connection for another request if all was read; else, close it."""
        self._response.close()


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise the errors of httpx2 instead of those of aiohttp.

    httpx-aiohttp does that too, but calls a connection that was lost one that was never made:
    whoever has asked for a deletion would believe that it was not carried out.
    """
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx2.ConnectTimeout("") from error
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise httpx2.ReadTimeout("") from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError("") from error
    except aiohttp.NonHttpUrlClientError as error:
        raise httpx2.UnsupportedProtocol("") from error
    except aiohttp.ClientOSError as error:
        raise httpx2.ReadError("") from error
    except aiohttp.ClientError as error:
        raise httpx2.RemoteProtocolError("the server does not follow the protocol") from error
    except UnicodeError:
        raise  # The host name cannot be one.
    except ValueError as error:
        raise httpx2.LocalProtocolError("a header has more than one line") from error
