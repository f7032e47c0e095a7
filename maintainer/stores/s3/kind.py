"""A bucket of S3 as a kind of store; what it works with is imported when one is opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maintainer.errors import UsageError
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.kind import StoreKind
from maintainer.stores.s3.address import FORM, Address, read_address

if TYPE_CHECKING:
    from maintainer.stores.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class _Connection:
    """The location of a cache in a bucket."""

    address: Address
    max_index_size: int

    @property
    def identity(self) -> tuple[str, ...]:
        """The place of its blobs."""
        return self.address.identity

    @asynccontextmanager
    async def open(self) -> AsyncIterator["ObjectStore"]:
        """Connect to the bucket."""
        try:
            from maintainer.stores.s3.client import open_bucket  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise UsageError(
                f"a bucket needs the extra s3 ({error.name} is missing): install maintainer[s3], "
                "such as by pip install '.[s3]'"
            ) from None
        from maintainer.stores.objects import ObjectStore  # noqa: PLC0415

        async with open_bucket(self.address) as bucket:
            yield ObjectStore(bucket, self.address.layout, max_index_size=self.max_index_size)


def _connect(settings: Settings, target: TargetSettings | None) -> _Connection:
    del target
    return _Connection(read_address(settings.store), settings.max_index_size)


S3 = StoreKind(
    "s3",
    form=FORM,
    has_place=True,
    connect=_connect,
    can_be_opened_early=True,
    blobs_of=lambda store: read_address(store).identity,
)
