"""Where a redirect leads, and what goes along."""

from http import HTTPStatus

import httpx2

from maintainer.stores.http.answers import to_web_url

_BECOMES_GET = {HTTPStatus.FOUND, HTTPStatus.SEE_OTHER}
"""Statuses after which clients ask with GET, whatever they have asked before."""
_SAFE = {"GET", "HEAD"}
_OF_THE_PLACE = ("Authorization", "Host")


def redirected(request: httpx2.Request, response: httpx2.Response) -> httpx2.Request | None:
    """Return the request that a redirect leads to; None if it would be none that was meant.

    Another origin, which is another scheme or port too, never gets the Authorization header.
    """
    if response.status_code in _BECOMES_GET and request.method not in _SAFE:
        return None
    try:
        url = request.url.join(response.headers["Location"])
    except (httpx2.InvalidURL, ValueError):  # The latter for an IPv6 address that is none.
        return None
    if not to_web_url(url):
        return None
    headers = request.headers.copy()
    if url.origin != request.url.origin:
        for name in _OF_THE_PLACE:
            headers.pop(name, None)
    return httpx2.Request(
        request.method,
        url,
        headers=headers,
        content=request.content or None,
        extensions=request.extensions,
    )
