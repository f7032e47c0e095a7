"""What all protocols share: parsing untrusted requests, and refusing them."""

import re
from enum import Enum
from http import HTTPStatus
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from maintainer.decoding import JSON_ERRORS

MAX_JSON = 64 * 1024
"""Bytes of a JSON request; the longest key has 512 characters."""
MAX_PIECE = 256 * 1024**2
"""Bytes of one upload request; GitHub's own client sends up to 128 MiB at once."""
MAX_KEY = 512
"""Characters, as GitHub limits them."""

_ID = re.compile(r"[0-9]{1,18}", re.ASCII)

_T = TypeVar("_T")


class Reason(Enum):
    """Why a request is refused: Twirp's code, and the HTTP status."""

    MALFORMED = "malformed", HTTPStatus.BAD_REQUEST
    INVALID = "invalid_argument", HTTPStatus.BAD_REQUEST
    UNAUTHENTICATED = "unauthenticated", HTTPStatus.UNAUTHORIZED
    DENIED = "permission_denied", HTTPStatus.FORBIDDEN
    NOT_FOUND = "not_found", HTTPStatus.NOT_FOUND
    TAKEN = "already_exists", HTTPStatus.CONFLICT
    TOO_LARGE = "out_of_range", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    RANGE = "out_of_range", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE

    @property
    def code(self) -> str:
        """Twirp's name for it."""
        return self.value[0]

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status."""
        return self.value[1]


class RefusedError(Exception):
    """A refusal; each protocol has its own format for it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


async def read_body(request: HttpRequest, limit: int) -> bytes:
    """Read a body of at most `limit` bytes. Raises RefusedError if it is longer."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RefusedError(Reason.TOO_LARGE, f"more than {limit:,} bytes")
    except ClientDisconnect:
        raise RefusedError(Reason.MALFORMED, "the body was cut short") from None
    return bytes(body)


async def read_json(request: HttpRequest, shape: type[_T]) -> _T:
    """Parse a JSON body of this shape. Raises RefusedError."""
    body = await read_body(request, MAX_JSON)
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise RefusedError(Reason.INVALID, str(error)) from None
    except JSON_ERRORS as error:
        raise RefusedError(Reason.MALFORMED, str(error)) from None


def read_id(request: HttpRequest) -> int:
    """Return the number in the path. Raises RefusedError if it is invalid."""
    text = str(request.path_params["id"])
    if not _ID.fullmatch(text):
        raise RefusedError(Reason.NOT_FOUND, "there is no such entry")
    return int(text)


def json_response(
    content: object, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    return Response(
        msgspec.json.encode(content), status, headers=headers, media_type="application/json"
    )


def base_url(request: HttpRequest) -> str:
    """Return the URL of this server, whatever host name the client used."""
    host, port = request.scope["server"]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
