"""A bucket of S3 as a kind of store."""

from maintainer.stores.objects.kind import ObjectKind, Open
from maintainer.stores.s3.address import FORM, Address, read_address


def _load() -> Open[Address]:
    from maintainer.stores.s3.client import open_bucket  # noqa: PLC0415

    return open_bucket


S3 = ObjectKind("s3", "s3", FORM, "a bucket of S3, for type=s3", read_address, _load).store_kind
