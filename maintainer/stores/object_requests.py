"""The requests to an object storage: what differs between services."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from maintainer.errors import StoreError
from maintainer.model.reason import StoreNote
from maintainer.sanitize import printable
from maintainer.stores.layout import Layout
from maintainer.stores.requests import RequestLog


@dataclass(frozen=True, slots=True)
class Object:
    """An object, as a list or a look-up shows it."""

    key: str
    size: int
    """Bytes."""
    modified_at: datetime
    tag: str
    """Of its content: another content has another one."""
    answered_at: datetime | None = None
    """The time of the service's clock at a look-up, if it reports that."""
    is_readable: bool = True
    """Whether builds can download it."""


class Objects(Protocol):
    """The requests to one bucket. Each may raise StoreError."""

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""

    def list(self, prefix: str) -> AsyncIterator[Sequence[Object]]:
        """List the objects whose keys begin like this, some at a time."""

    async def look(self, key: str) -> Object | None:
        """Look an object up; None if there is none."""

    async def get(self, key: str, *, limit: int) -> tuple[Object, bytes] | None:
        """Read an object of at most so many bytes; None if there is none.

        Raises UnreadableError if it is larger.
        """

    async def put(self, key: str, content: bytes, *, over: str | None) -> bool:
        """Write an object over the one with this tag, or where there is none.

        Return False if there is something else. A service may ignore that condition.
        """

    async def overwrite(self, key: str, content: bytes) -> None:
        """Write an object, whatever is there."""

    async def delete(self, tags: Mapping[str, str | None]) -> Mapping[str, StoreError]:
        """Delete objects; return what went wrong, by key.

        An object with a tag is deleted only if it still has that one, if the service can do that.
        """

    async def notes(self, layout: Layout, now: datetime) -> tuple[StoreNote, ...]:
        """Return what the owner should change at the bucket; nothing if it may not be read."""


class MissingError(StoreError):
    """There is no such object."""


class OtherError(StoreError):
    """There is something else than expected."""


def refuse_others(found: Sequence[Object], prefix: str) -> None:
    """Raise StoreError if a list shows what was not asked for."""
    for one in found:
        if not one.key.startswith(prefix):
            raise StoreError(
                f"the list of {printable(prefix)} shows {printable(one.key)}: the service ignores "
                "prefixes"
            )


def malformed(key: str) -> StoreError:
    """Return the error for an answer that lacks something: it proves nothing."""
    return StoreError(f"{printable(key)}: the answer of the service is malformed")


def read_clock(header: str) -> datetime | None:
    """Return the time at the service, by the header `Date`, if it reports one."""
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None
