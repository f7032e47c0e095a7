"""A container of Azure Blob Storage as a kind of store."""

from maintainer.stores.azblob.address import FORM, Address, read_address
from maintainer.stores.objects.kind import ObjectKind, Open


def _load() -> Open[Address]:
    from maintainer.stores.azblob.client import open_container  # noqa: PLC0415

    return open_container


AZBLOB = ObjectKind(
    "azblob", "azure", FORM, "a container of Azure, for type=azblob", read_address, _load
).store_kind
