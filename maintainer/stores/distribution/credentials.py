"""Credentials of `docker login`: Docker's config.json, and the helpers that it names."""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TypeVar

import anyio
import msgspec

from maintainer.decoding import JSON_ERRORS, decode_json
from maintainer.errors import StoreError
from maintainer.sanitize import printable

_T = TypeVar("_T")

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_CONFIG = 4 * 1024 * 1024
_MAX_ANSWER = 64 * 1024
"""Bytes; a credential has a few thousand."""
_HELPER_TIMEOUT = 30.0
"""Seconds; a helper may ask a cloud for a token."""
_IDENTITY_TOKEN = "<token>"  # noqa: S105 - the user name that stands for one
_NOT_FOUND = b"credentials not found"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password, or a token that is exchanged for others."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of a header `Authorization`."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class _Auth(msgspec.Struct, rename="lower"):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = msgspec.field(default="", name="identitytoken")


class _Config(msgspec.Struct, rename="camel"):
    auths: dict[str, _Auth] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


class _Found(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


async def find_credentials(
    login: str, environment: Mapping[str, str] = os.environ
) -> Credentials | None:
    """Return the credentials for a registry; None if there are none.

    Raises StoreError, which never contains what the configuration or a helper says.
    """
    path = _config_path(environment)
    config = _read_config(path)
    if helper := config.cred_helpers.get(login) or config.creds_store:
        return await _ask_helper(helper, login, environment)
    for key, auth in config.auths.items():
        if key == login or _host_of(key) == login:
            return _from_auth(auth, path)
    return None


def _config_path(environment: Mapping[str, str]) -> Path:
    if folder := environment.get("DOCKER_CONFIG"):
        return Path(folder) / "config.json"
    # Some users of containers have no home; what is in the current folder is nobody's.
    home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - Path raises
    return Path("/", home, ".docker", "config.json")


def _read_config(path: Path) -> _Config:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG + 1)
    except FileNotFoundError:
        return _Config()
    except OSError as error:
        raise StoreError(f"{printable(str(path))} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_CONFIG:
        raise StoreError(f"{printable(str(path))} has more than {_MAX_CONFIG:,} bytes")
    config = _decode(content, _Config)
    if config is None:
        raise StoreError(f"{printable(str(path))} is not a configuration of Docker")
    return config


def _decode(content: bytes, kind: type[_T]) -> _T | None:
    try:
        return decode_json(content, kind)
    except JSON_ERRORS:
        return None


def _host_of(key: str) -> str:
    """Return the host of a key; older versions of Docker wrote whole URLs."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _from_auth(auth: _Auth, path: Path) -> Credentials | None:
    username, password = auth.username, auth.password
    if auth.auth:
        try:
            pair = base64.b64decode(auth.auth, validate=True).decode()
        except (binascii.Error, ValueError):
            raise StoreError(f"{printable(str(path))} has an `auth` that is not Base64") from None
        username, _, password = pair.partition(":")
        password = password.rstrip("\0")
    if not (username or auth.identity_token):
        return None
    return Credentials(username, password, auth.identity_token)


async def _ask_helper(
    helper: str, login: str, environment: Mapping[str, str]
) -> Credentials | None:
    if not _HELPER.fullmatch(helper):
        raise StoreError(f"{printable(helper)} is not the name of a credential helper of Docker")
    program = f"docker-credential-{helper}"
    try:
        with anyio.fail_after(_HELPER_TIMEOUT):
            status, answer = await _run(program, login.encode(), environment)
    except TimeoutError:
        raise StoreError(f"{program} did not answer within {_HELPER_TIMEOUT:.0f} s") from None
    except OSError as error:
        raise StoreError(f"{program} cannot be run: {error.strerror}") from None
    if len(answer) > _MAX_ANSWER:
        raise StoreError(f"{program} gave a malformed answer")
    if status:
        if _NOT_FOUND in answer:
            return None
        raise StoreError(f"{program} ended with status {status}: run `docker login` again")
    found = _decode(answer, _Found)
    if found is None:
        raise StoreError(f"{program} gave a malformed answer")
    if found.username == _IDENTITY_TOKEN:
        return Credentials(identity_token=found.secret)
    return Credentials(found.username, found.secret) if found.username else None


async def _run(program: str, stdin: bytes, environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Run a helper; read no more of what it writes than an answer can have."""
    process = await anyio.open_process(
        [program, "get"], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment
    )
    answer = b""
    try:
        if process.stdin and process.stdout:
            with suppress(anyio.BrokenResourceError):  # It may answer without reading.
                await process.stdin.send(stdin)
                await process.stdin.aclose()
            with suppress(anyio.BrokenResourceError):  # Its status says why.
                async for piece in process.stdout:
                    answer += piece
                    if len(answer) > _MAX_ANSWER:
                        process.kill()
                        break
        return await process.wait(), answer
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()
