"""Tokens and signed URLs: who may do what."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import jwt
import msgspec

from maintainer.emulator.state import Clock

READ: Final = 1
WRITE: Final = 2

_INSTALLATION = "installation"
_INSTALLATION_PREFIX = "ghs_emulator_"

Purpose = Literal["r", "w"]
"""The permission of a signed URL, as in Azure's `sp`."""


class _Grant(msgspec.Struct, frozen=True):
    scope: str = msgspec.field(name="Scope")
    permission: int = msgspec.field(name="Permission")


@dataclass(frozen=True, slots=True)
class Permissions:
    """The permissions of a runtime token."""

    readable: tuple[str, ...]
    """Refs, in search order."""
    writable: str | None
    """The only ref that it may write."""


@dataclass(frozen=True)
class Tokens:
    """Makes and checks the two tokens of a workflow.

    Tokens use the real clock, even if the cache has another one, because clients check them by it.
    """

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    lifetime: timedelta = timedelta(days=1)

    def make_runtime_token(self, ref: str, readable: Sequence[str] = (), *, write: bool) -> str:
        """Return a token that may read `ref`, then the `readable` ones, and may write `ref`."""
        own = _Grant(ref, READ | WRITE if write else READ)
        grants = [own, *(_Grant(other, READ) for other in readable if other != ref)]
        now = datetime.now(UTC)
        claims = {
            "ac": msgspec.json.encode(grants).decode(),
            "nbf": now - timedelta(minutes=5),
            "exp": now + self.lifetime,
        }
        return jwt.encode(claims, self.secret, algorithm="HS256")

    @property
    def rest_token(self) -> str:
        """The token of the REST API."""
        return f"ghs_emulator{hmac.digest(self.secret, b'rest', 'sha256').hex()[:32]}"

    def read_runtime_token(self, authorization: str) -> Permissions | None:
        """Return the permissions of a header for the cache service; None if it is invalid."""
        try:
            claims = jwt.decode(
                _bearer(authorization),
                self.secret,
                algorithms=["HS256"],
                options={"require": ["exp", "ac"]},
            )
            grants = msgspec.json.decode(claims["ac"], type=list[_Grant])
        except (jwt.PyJWTError, msgspec.DecodeError, TypeError, ValueError, RecursionError):
            return None
        return Permissions(
            readable=tuple(g.scope for g in grants if g.permission & (READ | WRITE)),
            writable=next((g.scope for g in grants if g.permission & WRITE), None),
        )

    def is_rest_token(self, authorization: str) -> bool:
        """Whether an Authorization header of the REST API is valid."""
        is_ours = hmac.compare_digest(_bearer(authorization).encode(), self.rest_token.encode())
        return is_ours or self.is_installation_token(authorization)

    def make_installation_token(self, expires_at: datetime) -> str:
        """Return a token of an installation, in GitHub's form: a JSON web token, with a prefix."""
        claims = {"exp": expires_at, "aud": _INSTALLATION, "jti": secrets.token_hex(8)}
        return f"{_INSTALLATION_PREFIX}{jwt.encode(claims, self.secret, algorithm='HS256')}"

    def is_installation_token(self, authorization: str) -> bool:
        """Whether an Authorization header has a token of an installation that is still valid."""
        token = _bearer(authorization).removeprefix(_INSTALLATION_PREFIX)
        try:
            jwt.decode(token, self.secret, algorithms=["HS256"], audience=_INSTALLATION)
        except (jwt.PyJWTError, ValueError):
            return False
        return True


def _bearer(authorization: str) -> str:
    kind, _, token = authorization.partition(" ")
    return token.strip() if kind.lower() in ("bearer", "token") else ""


@dataclass(frozen=True)
class Signer:
    """Signs URLs of single blobs, as Azure's shared access signatures do; by the cache's clock."""

    clock: Clock
    lifetime: timedelta = timedelta(minutes=10)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def sign(self, blob_id: int, purpose: Purpose) -> dict[str, str]:
        """Return the query parameters of a URL for one blob and purpose."""
        expiry = f"{self.clock() + self.lifetime:%Y-%m-%dT%H:%M:%SZ}"
        return {"sp": purpose, "se": expiry, "sig": self._signature(blob_id, purpose, expiry)}

    def permits(self, blob_id: int, purpose: Purpose, expiry: str, signature: str) -> bool:
        """Whether the query parameters of such a URL are valid."""
        right = self._signature(blob_id, purpose, expiry)
        if not hmac.compare_digest(right.encode(), signature.encode()):
            return False
        return self.clock() < datetime.fromisoformat(expiry)

    def _signature(self, blob_id: int, purpose: Purpose, expiry: str) -> str:
        text = f"{blob_id} {purpose} {expiry}".encode()
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()
