"""`azblob://ACCOUNT/CONTAINER/PREFIX?…`: where a cache is, in the words of `type=azblob`."""

import posixpath
import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from maintainer.stores.address import refuse_overlap, take_apart, write_address, wrong
from maintainer.stores.objects.layout import Layout

FORM = "azblob://ACCOUNT/CONTAINER/PREFIX"
_BLOBS = "blobs"
_MANIFESTS = "manifests"
_KNOWN = ("account_url", "names", "blobs_prefix", "manifests_prefix", "longest_export")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_NAME = 1024 - len("/sha256:") - 64
"""Names have up to 1,024 characters."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cache is."""

    account: str
    container: str
    prefix: str = ""
    """The folder that contains all of it: BuildKit adds the slashes."""
    account_url: str | None = None
    blobs_prefix: str = _BLOBS
    manifests_prefixes: tuple[str, ...] = (_MANIFESTS,)
    """Of all indexes that share these blobs."""
    names: tuple[str, ...] = ()
    """Of the indexes to maintain, with `*` and `?`; all if empty."""
    longest_export: timedelta = timedelta(hours=2)
    """The time between the first blob that an export uploads and its index."""

    @property
    def url(self) -> str:
        """The URL of the account."""
        return self.account_url or f"https://{self.account}.blob.core.windows.net"

    @property
    def layout(self) -> Layout:
        """Where it keeps what."""
        return Layout(
            name=self.name,
            prefix=_folder(self.prefix),
            blobs=_folder(self.prefix, self.blobs_prefix),
            manifests=tuple(_folder(self.prefix, one) for one in self.manifests_prefixes),
            least_grace=self.longest_export,
            noun="container",
            touches=False,
            names=self.names,
        )

    @property
    def name(self) -> str:
        """Return the parts that identify it, in their shortest form."""
        given = [("account_url", self.account_url)]
        if self.blobs_prefix != _BLOBS:
            given.append(("blobs_prefix", self.blobs_prefix))
        if self.manifests_prefixes != (_MANIFESTS,):
            given += [("manifests_prefix", one) for one in self.manifests_prefixes]
        given.append(("names", ";".join(self.names)))
        path = f"{self.container}/{_folder(self.prefix)}".rstrip("/")
        return write_address("azblob", self.account, path, given)

    @property
    def identity(self) -> tuple[str, ...]:
        """The place of its blobs: two caches must not share it."""
        url = urlsplit(self.url)
        return ("azblob", url.netloc.lower() + url.path, self.container, self.layout.blobs)


def read_address(text: str) -> Address:
    """Read the setting `store`. Raises UsageError."""
    given = take_apart(text, _KNOWN, FORM, "AZURE_STORAGE_KEY or the Azure SDK")
    container, _, prefix = given.path.partition("/")
    if not _ACCOUNT.fullmatch(given.host):
        raise wrong("an account has 3 to 24 lowercase letters and digits: azblob://ACCOUNT/…")
    if not _CONTAINER.fullmatch(container):
        raise wrong(
            "a container has 3 to 63 lowercase letters, digits and hyphens: azblob://ACCOUNT/CONTAINER"
        )
    address = Address(
        account=given.host,
        container=container,
        prefix=prefix,
        account_url=given.url("account_url", "https://ACCOUNT.blob.core.windows.net"),
        blobs_prefix=given.one("blobs_prefix", _BLOBS),
        names=given.names,
        manifests_prefixes=given.manifests(_MANIFESTS),
        longest_export=given.duration("longest_export", "2h"),
    )
    layout = address.layout
    folders = (layout.blobs, *layout.manifests)
    if any(part == ".." for one in folders for part in one.split("/")):
        raise wrong("`..` leads out of the container")
    if not all(map(str.isprintable, folders)) or len(max(folders, key=len)) > _LONGEST_NAME:
        raise wrong("a prefix must be printable, and shorter than a name may be")
    refuse_overlap(layout.blobs, layout.manifests)
    return address


def _folder(*parts: str) -> str:
    """Join parts of a name as BuildKit does, which cleans them; the root is an empty text."""
    joined = posixpath.normpath("/".join(filter(None, parts))).lstrip("/")
    return "" if joined in (".", "") else f"{joined}/"
