"""A token service for docker-registry, which checks a password and grants some actions."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.scripted import Reply, Request, Server, serve
from tests.integration.scripted import json as reply_json

_NAME = "tokens"
_LONG = timedelta(days=3_650)


@dataclass
class TokenService:
    """What it grants, and to whom."""

    server: Server
    folder: Path
    granted: set[str] = field(default_factory=set)
    """The actions that it grants, of those that are asked for."""
    password: str = "a-secret"
    _key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key(), 1, now - _LONG, now + _LONG)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        (self.folder / "tokens.pem").write_bytes(pem)
        self.server.on("token", self._answer)

    @property
    def config(self) -> str:
        """The part of the configuration of a registry."""
        token = {
            "realm": f"{self.server.url}/token",
            "service": "registry",
            "issuer": _NAME,
            "rootcertbundle": str(self.folder / "tokens.pem"),
        }
        return f"auth: {json.dumps({'token': token})}\n"

    def login(self, host: str) -> Mapping[str, Any]:
        """Return Docker's configuration after a login."""
        pair = base64.b64encode(f"me:{self.password}".encode()).decode()
        return {"auths": {host: {"auth": pair}}}

    def _answer(self, request: Request) -> Reply:
        pair = base64.b64encode(f"me:{self.password}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {pair}":
            return Reply(401)
        kind, name, actions = request.query["scope"][0].rsplit(":", 2)[-3:]
        now = datetime.now(UTC)
        claims = {
            "iss": _NAME,
            "sub": "me",
            "aud": "registry",
            "nbf": now - timedelta(minutes=1),
            "exp": now + timedelta(minutes=5),
            "access": [
                {
                    "type": kind,
                    "name": name,
                    "actions": [one for one in actions.split(",") if one in self.granted],
                }
            ],
        }
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        headers = {"x5c": [base64.b64encode(der).decode()]}
        return reply_json({"token": jwt.encode(claims, self._key, "ES256", headers)})


@contextmanager
def a_token_service(folder: Path) -> Iterator[TokenService]:
    """Serve tokens."""
    with serve() as server:
        yield TokenService(server, folder)
