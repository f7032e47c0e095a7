"""The cache service, which builds talk to: what its versions 1 and 2 have in common.

Source: the clients that BuildKit and `@actions/cache` use. The bearer token goes to the service
only, never to a download or upload URL, and service requests follow no redirect.
"""

from http import HTTPStatus
from typing import Protocol

from maintainer.errors import AlreadyExistsError, StoreError, TokenRefusedError
from maintainer.sanitize import printable
from maintainer.stores.github.keyed import CacheHit
from maintainer.stores.http.answers import Answer


class CacheService(Protocol):
    """What both versions can do; keys are found by GitHub's loose matching."""

    async def find(self, key: str, *, prefix: bool) -> CacheHit | None:
        """Find `key`; with `prefix`, or else the entry created last that starts with it.

        None only if the service says so in the words of its protocol.
        """

    async def write(self, key: str, content: bytes) -> None:
        """Reserve, upload and finalize. Raises InDoubtError if it may have been written."""


class InDoubtError(StoreError):
    """The response to a request that may have been carried out was lost or malformed."""

    def __init__(self, cause: StoreError) -> None:
        """Take the error to raise if it turns out that nothing was written."""
        super().__init__(str(cause))
        self.cause = cause


def key_taken(key: str, answer: Answer) -> StoreError:
    """Return the error for a key that cannot be reserved, maybe because an earlier attempt did."""
    error = AlreadyExistsError(f"{printable(key)} exists already")
    return InDoubtError(error) if answer.in_doubt else error


def check_token(answer: Answer) -> None:
    """Raise TokenRefusedError if the service does not know the token."""
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise TokenRefusedError(
            f"{answer.place} did not accept {answer.token_env} (HTTP 401): a runtime token is "
            "valid only while its workflow runs, for a few hours"
        )
