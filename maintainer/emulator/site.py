"""What all protocols share: the cache, and the permissions."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest

from maintainer.emulator.account import Account
from maintainer.emulator.requests import BLOBS
from maintainer.emulator.state import ActionsCache
from maintainer.emulator.tokens import Permissions, Purpose, Signer, Tokens
from maintainer.emulator.web import Reason, RefusedError, base_url

WRITE_DENIED = "cache write denied: the token can only read"
"""GitHub's client recognizes a refused write by the start of this message."""


@dataclass(frozen=True)
class Site:
    """One emulated service."""

    cache: ActionsCache
    tokens: Tokens
    signer: Signer
    account: Account = field(default_factory=Account)

    def permissions(self, request: HttpRequest) -> Permissions:
        """Return the permissions of a request's runtime token. Raises RefusedError."""
        header = request.headers.get("authorization", "")
        permissions = self.tokens.read_runtime_token(header)
        if permissions is None:
            raise RefusedError(Reason.UNAUTHENTICATED, "the runtime token is not valid")
        return permissions

    def readable(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the refs that a request may read. Raises RefusedError if there are none."""
        readable = self.permissions(request).readable
        if not readable:
            raise RefusedError(Reason.DENIED, "cache read denied: the token can read no cache")
        return readable

    def writable(self, request: HttpRequest) -> str:
        """Return the ref that a request may write. Raises RefusedError if there is none."""
        writable = self.permissions(request).writable
        if writable is None:
            raise RefusedError(Reason.DENIED, WRITE_DENIED)
        return writable

    def signed_url(self, request: HttpRequest, blob_id: int, purpose: Purpose) -> str:
        """Return a URL for one blob and one purpose, valid for a limited time."""
        query = urlencode(self.signer.sign(blob_id, purpose))
        return f"{base_url(request)}{BLOBS}/{blob_id}?{query}"
