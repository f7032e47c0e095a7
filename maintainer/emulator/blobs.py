"""The storage behind signed URLs: as much of Azure's block blobs as the clients use.

Source: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

import re
import secrets
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from maintainer.emulator.site import Site
from maintainer.emulator.state import Entry
from maintainer.emulator.tokens import Purpose
from maintainer.emulator.uploads import MAX_BLOCKS, Upload, UploadError
from maintainer.emulator.web import MAX_PIECE, Reason, RefusedError, read_body, read_id

_VERSION = "2025-05-05"
_MAX_BLOCK_LIST = MAX_BLOCKS * 128
"""Bytes: an id has at most 64, and its tags 21 more."""
_MAX_BLOCK_ID = 128

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})", re.ASCII)
# A block list is flat and contains only base64, so it needs no XML parser; entities, comments and
# document types have no meaning here.
_BLOCK_LIST = re.compile(
    r"\ufeff?\s*(?:<\?xml[^<>]*\?>)?\s*<BlockList\s*(?:/>|>(?P<blocks>.*)</BlockList\s*>)\s*",
    re.DOTALL,
)
_BLOCK = re.compile(
    r"\s*<(?P<tag>Latest|Uncommitted|Committed)>\s*(?P<id>[A-Za-z0-9+/=_-]{1,128})\s*</(?P=tag)>\s*"
)

_CODES = {
    Reason.DENIED: "AuthenticationFailed",
    Reason.NOT_FOUND: "BlobNotFound",
    Reason.INVALID: "InvalidInput",
    Reason.MALFORMED: "InvalidInput",
    Reason.TOO_LARGE: "RequestBodyTooLarge",
    Reason.RANGE: "InvalidRange",
}


class Blobs:
    """Serves uploads and downloads; the URL is the permission."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes: list[BaseRoute] = [
            Route("/{id}", self.download, methods=["GET", "HEAD"]),
            Route("/{id}", self.upload, methods=["PUT"]),
        ]

    async def download(self, request: HttpRequest) -> Response:
        """Return the content of an entry, or a range of it."""
        entry = self._site.cache.get(self._permit(request, "r"))
        if entry is None or entry.lost:
            raise RefusedError(Reason.NOT_FOUND, "The specified blob does not exist.")
        start, stop, partial = _range(request, entry.size)
        headers = _headers(entry.id, entry.created_at) | {
            "Content-Length": str(stop - start),
            "Accept-Ranges": "bytes",
            "x-ms-blob-type": "BlockBlob",
        }
        if partial:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
        status = HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return _content(entry, start, stop, status, headers)

    async def upload(self, request: HttpRequest) -> Response:
        """Accept a whole blob, a block, or the list that joins the blocks."""
        upload_id = self._permit(request, "w")
        handlers = {"": self._put, "block": self._stage, "blocklist": self._commit}
        handler = handlers.get(request.query_params.get("comp", ""))
        if handler is None:
            raise RefusedError(Reason.INVALID, "comp is not one of block and blocklist")
        try:
            await handler(request, upload_id)
        except UploadError as error:
            raise RefusedError(Reason.INVALID, str(error)) from None
        headers = _headers(upload_id, self._site.cache.clock())
        headers["x-ms-request-server-encrypted"] = "true"
        return Response(status_code=HTTPStatus.CREATED, headers=headers)

    async def _put(self, request: HttpRequest, upload_id: int) -> None:
        if request.headers.get("x-ms-blob-type") != "BlockBlob":
            raise RefusedError(Reason.INVALID, "x-ms-blob-type is not BlockBlob")
        content = await read_body(request, MAX_PIECE)
        self._find(upload_id).put(content)

    async def _stage(self, request: HttpRequest, upload_id: int) -> None:
        block = request.query_params.get("blockid", "")
        if not 0 < len(block) <= _MAX_BLOCK_ID:
            raise RefusedError(Reason.INVALID, "blockid is missing or too long")
        content = await read_body(request, MAX_PIECE)
        self._find(upload_id).stage(block, content)

    async def _commit(self, request: HttpRequest, upload_id: int) -> None:
        body = await read_body(request, _MAX_BLOCK_LIST)
        self._find(upload_id).commit(parse_block_list(body))

    def _find(self, upload_id: int) -> Upload:
        upload = self._site.cache.upload(upload_id)
        if upload is None:
            raise RefusedError(Reason.NOT_FOUND, "The specified container does not exist.")
        return upload

    def _permit(self, request: HttpRequest, purpose: Purpose) -> int:
        blob_id = read_id(request)
        query = request.query_params
        allowed = query.get("sp") == purpose and self._site.signer.permits(
            blob_id, purpose, query.get("se", ""), query.get("sig", "")
        )
        if not allowed:
            raise RefusedError(Reason.DENIED, "Server failed to authenticate the request.")
        return blob_id

    @staticmethod
    def refuse(_: HttpRequest, error: Exception) -> Response:
        """Return an error in Azure's format."""
        assert isinstance(error, RefusedError)  # noqa: S101
        return storage_error(
            error.reason.status, _CODES.get(error.reason, "InternalError"), error.message
        )


def storage_error(status: int, code: str, message: str) -> Response:
    """Return an error as Azure's storage does; `message` contains no markup."""
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    headers = {"x-ms-error-code": code, "x-ms-request-id": secrets.token_hex(16)}
    return Response(
        body, status, headers=headers | {"x-ms-version": _VERSION}, media_type="application/xml"
    )


def parse_block_list(body: bytes) -> list[str]:
    """Return the ids of the blocks in order. Raises RefusedError if the list is invalid."""
    try:
        match = _BLOCK_LIST.fullmatch(body.decode())
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise RefusedError(Reason.INVALID, "The block list is not valid.")
    text = match["blocks"] or ""
    blocks: list[str] = []
    position = 0
    while block := _BLOCK.match(text, position):
        blocks.append(block["id"])
        position = block.end()
    if text[position:].strip() or len(blocks) > MAX_BLOCKS:
        raise RefusedError(Reason.INVALID, "The block list is not valid.")
    return blocks


def _range(request: HttpRequest, size: int) -> tuple[int, int, bool]:
    """Return the first byte, the byte after the last, and whether a range was requested."""
    asked = request.headers.get("x-ms-range") or request.headers.get("range")
    match = _RANGE.fullmatch(asked) if asked else None
    if match is None:  # HTTP ignores an invalid range.
        return 0, size, False
    start = int(match[1])
    stop = min(int(match[2]) + 1, size) if match[2] else size
    if start >= size or stop <= start:
        raise RefusedError(Reason.RANGE, "The range specified is invalid.")
    return start, stop, True


def _content(entry: Entry, start: int, stop: int, status: int, headers: dict[str, str]) -> Response:
    return StreamingResponse(
        entry.read(start, stop), status, headers=headers, media_type="application/octet-stream"
    )


def _headers(blob_id: int, modified_at: datetime) -> dict[str, str]:
    return {
        "ETag": f'"0x{blob_id:016X}"',
        "Last-Modified": format_datetime(modified_at, usegmt=True),
        "x-ms-request-id": secrets.token_hex(16),
        "x-ms-version": _VERSION,
    }
